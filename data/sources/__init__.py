"""Where pictures come from: one small file per kind of source behind one protocol."""

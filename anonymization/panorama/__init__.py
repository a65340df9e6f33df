"""Big and bent pictures: projections, views cut from them, and finds mapped back and merged."""

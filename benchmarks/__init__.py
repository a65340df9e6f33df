"""What `make bench` measures: speed, where the project promises some."""

"""Records of finished cells: estimates with intervals, and paired differences."""

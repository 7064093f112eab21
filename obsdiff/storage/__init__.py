"""Files that a later run trusts: hashed, written atomically, locked."""

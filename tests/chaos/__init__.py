"""Everything that goes wrong in earnest, with every request counted: sent, answered, refused, lost."""

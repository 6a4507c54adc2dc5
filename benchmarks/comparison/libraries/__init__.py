"""Who takes part: a module for each library, with a function for each suite (see ``..``)."""

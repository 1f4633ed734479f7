"""The two estimators: the forms of ``fit``, validation, progress, callbacks and persistence."""

//! A file system that fails when told to: for tests of what the engine leaves behind after an error.

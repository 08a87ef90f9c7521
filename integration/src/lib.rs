//! Helpers for the tests of this folder.

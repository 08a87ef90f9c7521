//! Images and what is attached to them.

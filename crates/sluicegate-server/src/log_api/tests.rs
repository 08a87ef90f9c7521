//! The API over real connections, each test with a log and a server of its own.

mod adding;
mod connections;
mod ending;
mod held_log;
mod many_at_once;
mod reading;
mod refusals;
mod served_log_folder;
mod signed_entries;

use std::time::Duration;

/// What a server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; more wait in the system's queue.
    pub connections: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// How long a request's head may take, and how long a connection may be idle.
    pub head_read: Duration,
    /// How long a request's body may take.
    pub body_read: Duration,
    /// How long an entry may wait for its checkpoint.
    pub append: Duration,
    /// How long one connection may last in all, so that who reads slowly holds nothing for ever.
    pub connection: Duration,
    /// How long connections have, after the end was asked for, to come to theirs.
    pub drain: Duration,
    /// Entries that wait for the next checkpoint; more are told to come again.
    pub queue: usize,
    /// Entries that one checkpoint covers at most.
    pub group: usize,
    /// Tiles that are read at a time; more wait.
    pub tile_reads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            body: 64 * 1024,
            head: 16 * 1024,
            head_read: Duration::from_secs(10),
            body_read: Duration::from_secs(10),
            // The log's lock may be held by another process for half a minute.
            append: Duration::from_secs(60),
            connection: Duration::from_secs(600),
            drain: Duration::from_secs(65),
            queue: 1024,
            group: 1024,
            tile_reads: 16,
        }
    }
}

//! KV memory of one replica: how many blocks there are ([`sizing`]), which are free and which are cached
//! ([`block_pool`]), and what a request may have ([`manager`]).

pub mod block_pool;
pub mod manager;
pub mod sizing;

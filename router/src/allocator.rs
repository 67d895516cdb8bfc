//! The allocator of every program that this crate is linked into: the router itself, and the load test, so that it measures what
//! runs. Why this one: see ARCHITECTURE.md.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

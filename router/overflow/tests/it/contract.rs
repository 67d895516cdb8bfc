//! The contract, over the stores that need no server.

use overflow::Overflow;
use overflow::contract::Place;
use overflow::disk::{Config, Disk};
use overflow::memory::{self, Limits};

mod disk {
    use super::*;

    struct Directory(tempfile::TempDir);

    impl Directory {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// Segments so short that every case goes over several.
        fn config(&self) -> Config {
            Config {
                lanes: 4,
                segment_bytes: 4096,
                record_bytes_max: 64 << 10,
                ..Config::new(self.0.path().join("store"))
            }
        }
    }

    impl Place for Directory {
        fn open(&self) -> Box<dyn Overflow> {
            Box::new(Disk::open(&self.config()).unwrap())
        }

        fn open_small(&self) -> Box<dyn Overflow> {
            Box::new(Disk::open(&Config { store_bytes_max: 1 << 20, ..self.config() }).unwrap())
        }

        fn record_bytes_max(&self) -> usize {
            self.config().record_bytes_max
        }

        fn spoil(&self, lane: u16, position: u64) -> bool {
            crate::small::spoil(&self.config().dir, lane, position);
            true
        }
    }

    overflow::contract_tests!(Directory::new);
}

mod memory_store {
    use super::*;

    struct Kept(memory::Place);

    const LIMITS: Limits = Limits { record_bytes_max: 64 << 10, store_bytes_max: 64 << 20 };

    impl Kept {
        fn new() -> Self {
            Self(memory::Place::new(4))
        }
    }

    impl Place for Kept {
        fn open(&self) -> Box<dyn Overflow> {
            Box::new(self.0.open(LIMITS))
        }

        fn open_small(&self) -> Box<dyn Overflow> {
            Box::new(self.0.open(Limits { store_bytes_max: 1 << 20, ..LIMITS }))
        }

        fn record_bytes_max(&self) -> usize {
            LIMITS.record_bytes_max
        }

        fn spoil(&self, lane: u16, position: u64) -> bool {
            self.0.spoil(lane, position);
            true
        }
    }

    overflow::contract_tests!(Kept::new);
}

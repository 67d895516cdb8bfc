//! Room in an outbox: what dispatches take and the writer gives back comes to the same.

use super::check;
use crate::container::Room;
use loom::thread;
use std::sync::Arc;

#[test]
fn what_is_taken_and_given_back_adds_up() {
    check(|| {
        let room = Arc::new(Room::new(100));
        room.take(101);
        let writer = {
            let room = room.clone();
            thread::spawn(move || room.give_back(101))
        };
        room.take(60);
        writer.join().unwrap();
        assert!(!room.is_full(), "60 of 100 are taken");
        room.take(41);
        assert!(room.is_full(), "101 are");
    });
}

//! Bugs that can be planted, to prove that the simulator finds them. In a build without `--cfg mutants` none is ever there:
//! [`is`] is constant, and what it guards is compiled away.

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant { $($(#[$doc])* $name,)* }

        impl Mutant {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

mutants! {
    /// What was on a container that is gone is queued again.
    RequeueOnGone = "requeue_on_gone",
    /// What was on a container that is gone is forgotten without a word.
    SilentOnGone = "silent_on_gone",
    /// A completion gives its container one more credit than it grants.
    CreditTwice = "credit_twice",
    /// A late completion frees its place a second time.
    LateFreesTwice = "late_frees_twice",
    /// A return does not free its place.
    ReturnKeepsPlace = "return_keeps_place",
    /// A container that retires still gets work.
    RetiredGetsWork = "retired_gets_work",
    /// A container whose node is away still gets work.
    SuspendedGetsWork = "suspended_gets_work",
    /// What is in the queue goes out at its very deadline.
    DeadlineOffByOne = "deadline_off_by_one",
    /// What is in the queue goes out after its deadline, until its timer comes.
    DeadlineNotChecked = "deadline_not_checked",
    /// Timers of deadlines come too early.
    TimerEarly = "timer_early",
    /// Timers of deadlines come late.
    TimerLate = "timer_late",
    /// A completion is answered twice.
    AnsweredTwice = "answered_twice",
    /// A failure that is its own doing is not answered.
    FailureUnanswered = "failure_unanswered",
    /// One more is queued than may be.
    CountOffByOne = "count_off_by_one",
    /// The bytes of the activation itself are not counted against the action's limit.
    BytesNotCounted = "bytes_not_counted",
    /// What expires keeps its share of the router's budget.
    BudgetLeak = "budget_leak",
    /// What comes back goes to the end of the queue.
    RequeueAtEnd = "requeue_at_end",
    /// What comes goes to the head of the queue.
    LastInFirstOut = "last_in_first_out",
    /// An id that is in flight is taken again.
    IdTakenTwice = "id_taken_twice",
    /// An id that ended is taken again.
    RecentNotAsked = "recent_not_asked",
    /// An id whose activation was lost is not remembered.
    LostNotRemembered = "lost_not_remembered",
    /// A return does not count as an attempt.
    AttemptNotRaised = "attempt_not_raised",
    /// What a container that rejoins does not hold stays in flight.
    RejoinKeepsAll = "rejoin_keeps_all",
    /// The credits of a container that rejoins are added to those it had.
    RejoinAddsCredits = "rejoin_adds_credits",
    /// A dispatch that never left is dropped.
    UnsentDropped = "unsent_dropped",
    /// A comparison of credits forgets what is under way.
    AuditForgetsUnderway = "audit_forgets_underway",
    /// The action's own failure counts against its container.
    BreakerBlamesContainer = "breaker_blames_container",
    /// A timeout is a strike whatever time the container had.
    TimeoutAlwaysStrikes = "timeout_always_strikes",
    /// Breakers of nodes are kept by session.
    NodeBreakerBySession = "node_breaker_by_session",
    /// The breaker of a node is forgotten with its last container.
    DeadNodeForgotten = "dead_node_forgotten",
    /// What a node that resumes its session lost is not held against it.
    ResumingForgives = "resuming_forgives",
    /// One strike opens a breaker.
    BreakerTooQuick = "breaker_too_quick",
    /// Room in an outbox is not looked at.
    RoomIgnored = "room_ignored",
    /// A container that waited for room is forgotten.
    RoomForgotten = "room_forgotten",
    /// A container that timed out once is not watched again.
    WatchedOnce = "watched_once",
    /// What was handed back unsent keeps its room.
    MailboxKeepsRoom = "mailbox_keeps_room",
    /// Dispatches that never left are lost with the stream.
    MailboxDropsUnsent = "mailbox_drops_unsent",
    /// Answers that waited for a peer are dropped when it is back.
    MailboxDropsAnswers = "mailbox_drops_answers",
    /// A stream ends though answers are owed.
    MailboxEndsEarly = "mailbox_ends_early",
    /// Sessions wait for ever.
    GraceForever = "grace_forever",
    /// An entry of an earlier registration counts.
    EpochIgnored = "epoch_ignored",
    /// A repetition is told that the queue is full.
    RepetitionTakenForNew = "repetition_taken_for_new",
    /// The desk's timers come a second late.
    DeskTimerLate = "desk_timer_late",
    /// The desk says of what it has sent that it never left.
    DeskSaysNeverSent = "desk_says_never_sent",
    /// A container that did not rejoin is not missed.
    AbsentNotMissed = "absent_not_missed",
    /// What overflows is acknowledged as durable before it is.
    AckedBeforeDurable = "acked_before_durable",
    /// What comes back is handed in first and marked as consumed then.
    MarkAfterHandOut = "mark_after_hand_out",
    /// What comes back goes behind what was queued in memory meanwhile.
    RefilledAtEnd = "refilled_at_end",
    /// While an action overflows, its pushes are queued in memory where there is room.
    OutGoesToMemory = "out_goes_to_memory",
    /// The time that an activation was stored is not counted.
    StoredTimeForgiven = "stored_time_forgiven",
    /// The wall clock says within one boot, too, how long a record was stored.
    WallClockWithinBoot = "wall_clock_within_boot",
    /// A wall clock that was set back gives a record more time than it had.
    SetBackGivesTime = "set_back_gives_time",
    /// That the wall clock was set is not counted.
    ClockJumpUncounted = "clock_jump_uncounted",
    /// Records are stamped with the wall clock as it was when the router started.
    WallClockOfStart = "wall_clock_of_start",
    /// The id of an activation that is stored is free.
    StoredIdFree = "stored_id_free",
    /// A damaged record is handed in.
    DamagedHandedIn = "damaged_handed_in",
    /// Damage deletes the segment it is in.
    SegmentDeleted = "segment_deleted",
    /// Bytes on their way into the store stay reserved when it refuses them.
    PendingLeak = "pending_leak",
    /// An action that is back in memory keeps its lane.
    LaneNotLeft = "lane_not_left",
    /// An action never sees that all has come back.
    NeverLetsGo = "never_lets_go",
    /// Records of an earlier life are offered to their action though their time is over.
    RecoveredUnfiltered = "recovered_unfiltered",
    /// A consume mark is forgotten when the router starts again.
    MarkForgotten = "mark_forgotten",
    /// What comes back may do so before its action was told that it is stored.
    UntoldHandedIn = "untold_handed_in",
    /// Behind a barrier everything comes back at once.
    BarrierUnbounded = "barrier_unbounded",
    /// What is on its way into the store is not waited for by who only wants to hear of that.
    SpillingTakenForLost = "spilling_taken_for_lost",
    /// An action that overflows elsewhere takes no care of how much an earlier life has left of it.
    ElsewhereUnbounded = "elsewhere_unbounded",
    /// An action that overflows elsewhere takes records from all other lanes at once.
    LanesTogether = "lanes_together",
    /// A mark for all goes as far as one action is, and consumes what others have before it.
    OthersConsumed = "others_consumed",
    /// Of the actions that share a lane the first comes first, each time.
    ReadsUnfair = "reads_unfair",
    /// An action that shares a lane waits until its records are the first there.
    LaneInOrder = "lane_in_order",
    /// A damaged record is passed over without a word to its controller.
    DamageUnsaid = "damage_unsaid",
    /// What stays in the store when the router ends is not acknowledged.
    PartedUnsaid = "parted_unsaid",
    /// Kafka's producer repeats what was taken already.
    KafkaRepeats = "kafka_repeats",
}

#[cfg(mutants)]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug for this thread, in place of the one that was there.
#[cfg(mutants)]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether that bug is planted in this thread.
#[cfg(mutants)]
#[inline]
pub fn is(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// It is not.
#[cfg(not(mutants))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

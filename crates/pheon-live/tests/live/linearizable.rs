//! Recorded histories of concurrent operations are those of some sequential order that respects real time: checked with
//! the Wing-Gong-Lowe checker of `todc-utils`.

use std::sync::atomic::{AtomicU64, Ordering};

use pheon_live::{Change, LiveMap};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use crate::behaviour::Random;
use crate::scratch::{Scratch, locked, put};

const KEYS: u64 = 2;
const THREADS: u64 = 4;
const STEPS: u64 = 40;
const ROUNDS: u64 = 60;

type Values = [Option<u64>; KEYS as usize];

/// An operation; what it answers is `None` when it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Op {
    Put(usize, u64),
    PutAll(u64),
    Delete(usize, Option<bool>),
    Get(usize, Option<Option<u64>>),
    /// Of one moment: a snapshot.
    GetAll(Option<Values>),
    /// Under the lock: (key, old, new) if the value is old.
    Replace(usize, u64, u64, Option<bool>),
}

struct Dictionary;

impl Specification for Dictionary {
    type State = Values;
    type Operation = Op;

    fn init() -> Values {
        Values::default()
    }

    fn apply(operation: &Op, state: &Values) -> (bool, Values) {
        let mut after = *state;
        let right = match *operation {
            Op::Put(key, value) => {
                after[key] = Some(value);
                true
            }
            Op::PutAll(value) => {
                after = [Some(value); KEYS as usize];
                true
            }
            Op::Delete(key, was) => {
                after[key] = None;
                was == Some(state[key].is_some())
            }
            Op::Get(key, answer) => answer == Some(state[key]),
            Op::GetAll(answer) => answer == Some(*state),
            Op::Replace(key, old, new, done) => {
                if state[key] == Some(old) {
                    after[key] = Some(new);
                }
                done == Some(state[key] == Some(old))
            }
        };
        (right, after)
    }
}

fn key(number: usize) -> [u8; 2] {
    [b'k', number as u8]
}

/// Values of many lengths, so that chunks end at all places and the log is cleaned.
fn bytes(value: u64) -> Vec<u8> {
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(8 + (value.wrapping_mul(7919) % 20_000) as usize, 1);
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

fn perform(map: &LiveMap, op: &Op) -> Op {
    match *op {
        Op::Put(k, value) => {
            put(map, &key(k), &bytes(value)).unwrap();
            op.clone()
        }
        Op::PutAll(value) => {
            let (keys, value) = ([key(0), key(1)], bytes(value));
            let changes = keys.iter().map(|key| Change::Put { key, meta: 0, value: &value });
            locked(map, || map.apply(changes).unwrap());
            op.clone()
        }
        Op::Delete(k, _) => Op::Delete(k, Some(locked(map, || map.delete(&key(k)).unwrap()))),
        Op::Get(k, _) => Op::Get(k, Some(map.get_with(&key(k), |entry| number(entry.value())).unwrap())),
        Op::GetAll(_) => {
            let snapshot = map.snapshot().unwrap();
            let all = [0, 1].map(|k| snapshot.get(&key(k)).unwrap().map(|entry| number(entry.value())));
            Op::GetAll(Some(all))
        }
        Op::Replace(k, old, new, _) => {
            let done = locked(map, || {
                let now = map.get_with(&key(k), |entry| number(entry.value())).unwrap();
                if now == Some(old) {
                    map.put(&key(k), 0, &bytes(new)).unwrap();
                }
                now == Some(old)
            });
            Op::Replace(k, old, new, Some(done))
        }
    }
}

#[test]
fn histories_are_linearizable() {
    let scratch = Scratch::new();
    let mut deletions = 0;
    for round in 1..=ROUNDS {
        locked(&scratch.map, || scratch.map.clear().unwrap());
        let clock = AtomicU64::new(0);
        let mut actions = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    // Two threads read through a mapping of their own.
                    let reader = LiveMap::attach(&scratch.location(), false).unwrap();
                    let (map, clock) = (&scratch.map, &clock);
                    scope.spawn(move || {
                        let mut random = Random(round * 7919 + thread * 104_729 + 1);
                        let mut actions = Vec::new();
                        for step in 0..STEPS {
                            let value = thread * 1_000_000 + step;
                            let k = random.below(KEYS) as usize;
                            let op = match random.below(12) {
                                0..2 => Op::Put(k, value),
                                2 => Op::PutAll(value),
                                3 => Op::Delete(k, None),
                                4 => {
                                    Op::Replace(k, random.below(THREADS) * 1_000_000 + random.below(STEPS), value, None)
                                }
                                5..7 => Op::GetAll(None),
                                _ => Op::Get(k, None),
                            };
                            let reads = matches!(op, Op::Get(..) | Op::GetAll(_));
                            let with = if reads && thread % 2 == 0 { &reader } else { map };
                            let called = clock.fetch_add(1, Ordering::SeqCst);
                            let answer = perform(with, &op);
                            let answered = clock.fetch_add(1, Ordering::SeqCst);
                            // The checker applies an operation as it was answered.
                            actions.push((called, thread as usize, Action::Call(op)));
                            actions.push((answered, thread as usize, Action::Response(answer)));
                            // Churn beside it, so that the index is rebuilt.
                            put(map, &random.next().to_le_bytes(), b"").unwrap();
                        }
                        actions
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        actions.sort_by_key(|action| action.0);
        deletions += actions.iter().filter(|a| matches!(a.2, Action::Response(Op::Delete(_, Some(true))))).count();
        let history: Vec<_> = actions.into_iter().map(|(_, thread, action)| (thread, action)).collect();
        assert!(
            WGLChecker::<Dictionary>::is_linearizable(History::from_actions(history.clone())),
            "round {round}: {history:#?}"
        );
    }
    assert!(deletions > 0, "the histories are too tame");
}

#[test]
fn histories_that_are_not_are_refused() {
    let history = |answers: [Op; 3]| {
        let calls = [Op::PutAll(1), Op::Get(0, None), Op::GetAll(None)];
        let pairs = calls.into_iter().zip(answers).enumerate();
        let actions = pairs.flat_map(|(i, (call, answer))| [(i, Action::Call(call)), (i, Action::Response(answer))]);
        WGLChecker::<Dictionary>::is_linearizable(History::from_actions(actions.collect()))
    };
    let right = [Op::PutAll(1), Op::Get(0, Some(Some(1))), Op::GetAll(Some([Some(1), Some(1)]))];
    assert!(history(right.clone()));
    let [done, _, all] = right.clone();
    assert!(!history([done, Op::Get(0, Some(None)), all]), "a lost write");
    let [done, one, _] = right;
    assert!(!history([done, one, Op::GetAll(Some([Some(1), None]))]), "half a transaction");
}

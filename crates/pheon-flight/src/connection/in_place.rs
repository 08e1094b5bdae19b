//! Tasks that are polled again where they are when they have woken themselves.
//!
//! HTTP/2's streams wake their own task with each piece of a body that they take. The runtime would put such a task at the
//! end of its queue and wake another thread to take it from there: a system call a piece, and a race between two threads for
//! every answer to a single lookup.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// How often in a row; then others have their turn.
const TIMES_MAX: usize = 16;

const RUNNING: u8 = 1;
const WOKEN: u8 = 2;

/// Wakes the task, unless it is running: then it is only remembered.
#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) & RUNNING == 0 {
            self.task.wake();
        }
    }
}

/// A future that is polled in place.
pub(super) struct InPlace<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future> InPlace<F> {
    pub(super) fn new(future: F) -> Self {
        let bell = Arc::new(Bell::default());
        Self { future: Box::pin(future), waker: bell.clone().into(), bell }
    }
}

impl<F: Future> Future for InPlace<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, bell, waker } = &mut *self;
        bell.task.register(context.waker());
        for _ in 0..TIMES_MAX {
            bell.state.store(RUNNING, Ordering::Release);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            if bell.state.compare_exchange(RUNNING, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        bell.state.store(0, Ordering::Release);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Spawns the streams of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct InPlaceExecutor;

impl<F> hyper::rt::Executor<F> for InPlaceExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(InPlace::new(future));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once: whether it is ready, and how often the task was woken.
    fn poll<F: Future>(future: &mut InPlace<F>, count: &Arc<Count>) -> (bool, usize) {
        let waker = count.clone().into();
        let ready = Pin::new(future).poll(&mut Context::from_waker(&waker)).is_ready();
        (ready, count.0.swap(0, Ordering::Relaxed))
    }

    #[test]
    fn a_wake_from_within_wakes_nobody() {
        let mut left = 5;
        let mut future = InPlace::new(poll_fn(|context| {
            left -= 1;
            context.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert_eq!(poll(&mut future, &Arc::default()), (true, 0));
    }

    #[test]
    fn a_wake_from_outside_wakes_the_task() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut future = InPlace::new(async move { receiver.recv().await });
        let count = Arc::new(Count::default());
        assert_eq!(poll(&mut future, &count), (false, 0));
        sender.send(1).unwrap();
        assert_eq!(count.0.swap(0, Ordering::Relaxed), 1);
        assert_eq!(poll(&mut future, &count), (true, 0));
    }

    #[test]
    fn others_have_their_turn() {
        let mut polled = 0;
        let mut future = InPlace::new(poll_fn(|context| {
            polled += 1;
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert_eq!(poll(&mut future, &Arc::default()), (false, 1));
        drop(future);
        assert_eq!(polled, TIMES_MAX);
    }

    #[test]
    fn no_wake_is_lost_between_threads() {
        // The sender wakes while the receiver runs, sleeps, and goes to sleep: all must arrive.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            for _ in 0..200 {
                let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
                let receive = tokio::spawn(InPlace::new(async move {
                    let mut sum = 0;
                    while let Some(n) = receiver.recv().await {
                        sum += n;
                    }
                    sum
                }));
                let send = tokio::spawn(InPlace::new(async move {
                    for n in 1..=100_u64 {
                        sender.send(n).await.unwrap();
                    }
                }));
                send.await.unwrap();
                assert_eq!(receive.await.unwrap(), 5050);
            }
        });
    }
}

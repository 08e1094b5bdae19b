//! How streams that may stay open for ever learn that the server stops.

use tokio::sync::watch;

/// Begins the end: whoever waits for it is told.
#[derive(Debug)]
pub(crate) struct DrainStart(watch::Sender<bool>);

impl DrainStart {
    pub(crate) fn new() -> (Self, Drain) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Drain(Some(receiver)))
    }

    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }
}

/// Whether the server has been told to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain(Option<watch::Receiver<bool>>);

impl Drain {
    /// Of a server that is never told.
    pub fn never() -> Self {
        Self(None)
    }

    /// Waits until it has been told.
    pub(crate) async fn begun(self) {
        if let Some(mut receiver) = self.0
            && receiver.wait_for(|begun| *begun).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

//! Task supervision: every long-lived task belongs to a scope, ends with it, and takes it down when it ends by itself.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// Cloning is cheap and names the same scope.
#[derive(Clone)]
pub struct Scope {
    token: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<watch::Sender<Option<String>>>,
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Scope {
    pub fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failed: Arc::new(watch::Sender::new(None)),
        }
    }

    /// A scope that ends with this one, or earlier by itself. Its failures do not reach the parent.
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            tasks: TaskTracker::new(),
            failed: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Runs `task` until the scope ends. One that returns or panics earlier is a defect: the scope fails, and whoever
    /// waits for [`Scope::ended`] learns which task it was.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (token, failed) = (self.token.clone(), self.failed.clone());
        let inner = tokio::spawn({
            let token = token.clone();
            async move {
                tokio::select! {
                    () = token.cancelled() => true,
                    () = task => false,
                }
            }
        });
        self.tasks.spawn(async move {
            let how = match inner.await {
                Ok(true) => return,
                Ok(false) => "ended unexpectedly".to_owned(),
                Err(e) if e.is_cancelled() => return,
                Err(e) => e.to_string(),
            };
            if !token.is_cancelled() {
                error!(task = name, how, "task ended, stopping its scope");
                failed.send_replace(Some(format!("task {name}: {how}")));
                token.cancel();
            }
        });
    }

    /// Runs `task` to its own end, or to the scope's. For work per connection or per pod.
    pub fn spawn_short(&self, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = task => {}
            }
        });
    }

    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Tells every task to end.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Ends every task and waits for them.
    pub async fn shutdown(&self) {
        self.token.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns when the scope was cancelled (`None`) or a task failed (its name and how).
    pub async fn ended(&self) -> Option<String> {
        self.token.cancelled().await;
        self.failed.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_fails_the_scope() {
        let scope = Scope::new();
        scope.spawn("steady", std::future::pending());
        scope.spawn("quitter", async {});
        assert_eq!(scope.ended().await.as_deref(), Some("task quitter: ended unexpectedly"));
        scope.shutdown().await;
    }

    #[tokio::test]
    async fn shutdown_ends_children_and_is_no_failure() {
        let scope = Scope::new();
        let child = scope.child();
        child.spawn("steady", std::future::pending());
        scope.shutdown().await;
        assert_eq!(child.ended().await, None);
        child.shutdown().await;
    }
}

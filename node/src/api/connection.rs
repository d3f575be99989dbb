//! One HTTP/2 connection, from its first byte to its end.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::{Rng, RngExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Calls that are running when their connection is old enough have so long to end: as long as a stream may take.
const GRACE: Duration = Duration::from_secs(300);
/// Of an age, so much more or less: clients that came together do not go together.
const JITTER: f64 = 0.1;

/// When a connection ends that nobody else ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifetime {
    /// The server stops. Who serves waits for its connections, but not for ever.
    pub(crate) stopping: CancellationToken,
    /// About how old a connection gets, if not any age. A client that comes again may come to another node: that is how they spread over
    /// nodes that came back, or are new.
    pub(crate) age: Option<Duration>,
}

impl Lifetime {
    async fn is_old(&self) {
        let Some(age) = self.age else { return std::future::pending().await };
        let age = jittered(age, &mut rand::rng());
        tokio::time::sleep(age).await;
    }
}

/// How old the next connection gets.
fn jittered(age: Duration, random: &mut impl Rng) -> Duration {
    age.mul_f64(random.random_range(1.0 - JITTER..=1.0 + JITTER))
}

/// Answers the requests of one connection with `answer`, until it ends by itself, or its lifetime does: then the other side is told to
/// begin no more calls (GOAWAY), and those that run may end.
pub(crate) async fn serve<IO, Body, Answering>(
    io: IO,
    settings: http2::Builder<TokioExecutor>,
    answer: impl Fn(Request<Incoming>) -> Answering,
    lifetime: Lifetime,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Body: http_body::Body + Send + 'static,
    Body::Data: Send,
    Body::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Answering: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let mut connection = std::pin::pin!(settings.serve_connection(TokioIo::new(io), service_fn(answer)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = lifetime.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = lifetime.is_old() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("an old connection is cut off with calls on it"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn connections_that_came_together_go_over_a_fifth_of_their_age() {
        const AGE: Duration = Duration::from_secs(300);
        let mut random = StdRng::seed_from_u64(7);
        let ages: Vec<_> = (0..1000).map(|_| jittered(AGE, &mut random)).collect();
        assert!(ages.iter().all(|age| (270.0..=330.0).contains(&age.as_secs_f64())));
        for part in [270..280, 280..290, 290..300, 300..310, 310..320, 320..330] {
            let found = ages.iter().filter(|age| part.contains(&age.as_secs())).count();
            assert!(found > 100, "{found} of 1000 go after {part:?} seconds; about 167 should");
        }
    }
}

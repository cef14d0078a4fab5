//! Reads the answer from a connection whose peer has stopped reading.
//!
//! A daemon that refuses a request early, such as one that is too large, answers and
//! closes the connection. The client's next write then fails with `EPIPE`, and hyper would
//! give up, though the answer has arrived. So such a write counts as done, and the read
//! side returns the answer or the end of the connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

/// A stream that ignores failed writes to a closed peer.
#[derive(Debug)]
pub(super) struct ReadAfterEpipe(pub(super) UnixStream);

impl AsyncRead for ReadAfterEpipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for ReadAfterEpipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.0).poll_write(context, bytes) {
            Poll::Ready(Err(error)) if is_unheard(&error) => Poll::Ready(Ok(bytes.len())),
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Returns whether the peer has closed the connection: `EPIPE`, or `ECONNRESET` if it had
/// not read everything
/// (`unix_release_sock`, `net/unix/af_unix.c`).
fn is_unheard(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn what_was_answered_is_read_though_nobody_listens() {
        run(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut ours = ReadAfterEpipe(ours);
            ours.write_all(b"unread").await.unwrap();
            theirs.write_all(b"enough").await.unwrap();
            drop(theirs);
            ours.write_all(b"more").await.unwrap();
            let mut answer = [0; 6];
            ours.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"enough");
            let end = ours.read(&mut answer).await;
            assert!(matches!(end, Ok(0) | Err(_)), "then it is over: {end:?}");
        });
    }

    #[test]
    fn without_patience_the_pipe_is_broken() {
        run(async {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            drop(theirs);
            let error = ours.write_all(b"more").await.unwrap_err();
            assert!(is_unheard(&error), "{error}");
        });
        let others = [io::ErrorKind::WouldBlock, io::ErrorKind::PermissionDenied];
        assert!(!others.map(io::Error::from).iter().any(is_unheard));
    }
}

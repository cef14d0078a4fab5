//! A daemon for the commands to talk to: one that keeps the API's contract, and
//! some that don't.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::IntoResponse,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

/// What was asked: method, path with query, body.
pub(super) type Asked = (Method, String, Value);

/// What is answered.
pub(super) type Reply = (StatusCode, String);

type Answers = Box<dyn FnMut(&Asked) -> Reply + Send>;

struct Shared {
    asked: Vec<Asked>,
    answers: Answers,
}

/// Serves on a socket of its own until it is dropped.
pub(super) struct Daemon {
    shared: Arc<Mutex<Shared>>,
    folder: TempDir,
    /// Ends the server when it is dropped.
    _runtime: Runtime,
}

impl Daemon {
    /// One that answers as it is told to.
    pub(super) fn new(answers: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shared = Arc::new(Mutex::new(Shared {
            asked: Vec::new(),
            answers: Box::new(answers),
        }));
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _in = runtime.enter();
            tokio::net::UnixListener::bind(socket_in(folder.path())).unwrap()
        };
        runtime.spawn(async { axum::serve(listener, app).await.unwrap() });
        Self {
            shared,
            folder,
            _runtime: runtime,
        }
    }

    /// One that always answers this.
    pub(super) fn saying(status: u16, body: &str) -> Self {
        let body = body.to_owned();
        let status = StatusCode::from_u16(status).unwrap();
        Self::new(move |_| (status, body.clone()))
    }

    /// One that refuses everything with this message.
    pub(super) fn refusing(status: u16, message: &str) -> Self {
        Self::saying(status, &refusal(message))
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.lock().unwrap().asked.clone()
    }
}

/// Answers one connection with these bytes, whatever is asked, and closes it.
pub(super) struct Rude {
    thread: Option<JoinHandle<()>>,
    folder: TempDir,
}

impl Rude {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self::serving(move |stream| {
            // The request is read to its end first: closed with something unread,
            // a socket tells the other side of a reset and not of the end.
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            // The client may have had enough before all is written.
            let _ = stream.write_all(&bytes);
        })
    }

    /// One that never says a word, until the returned sender is dropped.
    pub(super) fn silent() -> (Self, mpsc::Sender<()>) {
        let (stop, stopped) = mpsc::channel::<()>();
        let silent = Self::serving(move |_| {
            stopped.recv().unwrap_err();
        });
        (silent, stop)
    }

    fn serving(serve: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_in(folder.path())).unwrap();
        let thread = thread::spawn(move || serve(&mut listener.accept().unwrap().0));
        Self {
            thread: Some(thread),
            folder,
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

pub(super) fn refusal(message: &str) -> String {
    json!({"NeutronError": {"type": "Any", "message": message, "detail": ""}}).to_string()
}

async fn answer(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> impl IntoResponse {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let asked = (method, uri.to_string(), body);
    let mut shared = shared.lock().unwrap();
    let (status, body) = (shared.answers)(&asked);
    shared.asked.push(asked);
    (status, [(CONTENT_TYPE, "application/json")], body)
}

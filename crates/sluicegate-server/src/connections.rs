//! Connections: how many at a time, how long each may take, and how they end.

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    pin, select,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::Limits;

/// How long to wait after the system gave no connection, for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`; then takes no more connections, and returns when the last one has ended or has had its time.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) {
    let (close, closing) = watch::channel(false);
    let free = Arc::new(Semaphore::new(limits.connections.max(1)));
    let mut open = JoinSet::new();
    pin!(shutdown);
    loop {
        let next = async {
            // Whoever comes while all are taken waits in the system's queue.
            let permit = free.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        select! {
            () = &mut shutdown => break,
            Some(_) = open.join_next() => {}
            (permit, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let (router, closing) = (router.clone(), closing.clone());
                    open.spawn(async move {
                        converse(stream, router, limits, closing).await;
                        drop(permit);
                    });
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
    drop((listener, router));
    close.send_replace(true);
    while open.join_next().await.is_some() {}
}

async fn converse(stream: TcpStream, router: Router, limits: Limits, mut closing: watch::Receiver<bool>) {
    // An answer is written whole: nothing is gained by waiting for more of it.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read)
        .max_buf_size(limits.head.max(8 * 1024))
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    pin!(connection);
    select! {
        // How a connection ends is its client's affair.
        _ = &mut connection => return,
        _ = closing.wait_for(|closing| *closing) => {}
        () = sleep(limits.connection) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limits.drain, connection).await;
}

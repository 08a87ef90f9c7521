//! A server of git repositories on a free port of the loopback, by git's own program for that: what a fetch over HTTP meets.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
};

/// Serves the repository in this folder as `/mirror`, or leads whoever asks to another address. Gives `127.0.0.1:PORT`; it ends with the
/// test's process.
pub fn serve(repository: &Path, leads_to: Option<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let root = repository.join(".git");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever goes away needs no answer.
            drop(answer(stream, &root, leads_to.as_deref()));
        }
    });
    host
}

fn answer(mut stream: TcpStream, root: &Path, leads_to: Option<&str>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    let mut command = Command::new("git");
    command.arg("http-backend").env("REQUEST_METHOD", &method).env("GIT_HTTP_EXPORT_ALL", "1");
    let mut len = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => len = value.parse().unwrap(),
            "content-type" => drop(command.env("CONTENT_TYPE", value)),
            "git-protocol" => drop(command.env("GIT_PROTOCOL", value)),
            "content-encoding" => drop(command.env("HTTP_CONTENT_ENCODING", value)),
            _ => {}
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let within = path.trim_start_matches("/mirror");
    if let Some(to) = leads_to {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {to}{within}?{query}\r\n");
        return stream.write_all(format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
    }
    command.env("QUERY_STRING", query).env("PATH_TRANSLATED", format!("{}{within}", root.display()));
    command.env("CONTENT_LENGTH", len.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().unwrap().write_all(&body)?;
    let said = child.wait_with_output()?.stdout;
    let length = said.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |head| said.len() - head - 4);
    stream.write_all(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n").as_bytes())?;
    stream.write_all(&said)
}

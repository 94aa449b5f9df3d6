//! Stands before a real server and injects faults of the network and of the service. The fault model: each request may be
//! passed on, refused with a status, passed on with its answer lost, cut short or changed, or left without any answer.
//! What is passed on reaches the server exactly as it was signed.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Pass,
    /// The server never sees it; the answer has this status and code.
    Refuse(u16, &'static str),
    /// It takes effect, and the connection breaks before the answer.
    LoseAnswer,
    /// Half of the answer's bytes come, then the connection breaks.
    CutAnswer,
    /// One bit of the answer's last byte is another.
    FlipAnswer,
    /// The answer to an earlier request, word for word.
    Instead(Vec<u8>),
    /// Nothing ever comes back.
    Silence,
    /// Passed on without its credentials.
    Anonymously,
}

/// A request as the plan sees it.
pub struct Seen<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// The whole head, as it came.
    pub head: &'a str,
}

type Plan = Box<dyn FnMut(&Seen<'_>) -> Act + Send>;

/// Answers by what was asked.
type Answers = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A proxy with a plan. It ends with the test's runtime.
pub struct Proxy {
    pub url: String,
    plan: Arc<Mutex<Plan>>,
    answers: Answers,
}

impl Proxy {
    pub async fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let plan: Arc<Mutex<Plan>> = Arc::new(Mutex::new(Box::new(|_| Act::Pass)));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let server = server.strip_prefix("http://").expect("http").to_owned();
        let (plan_there, answers_there) = (Arc::clone(&plan), Arc::clone(&answers));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, plan, answers) = (server.clone(), Arc::clone(&plan_there), Arc::clone(&answers_there));
                // A broken connection is what is wanted at times.
                tokio::spawn(async move { drop(one(client, &server, &plan, &answers).await) });
            }
        });
        Self { url, plan, answers }
    }

    pub fn plan(&self, plan: impl FnMut(&Seen<'_>) -> Act + Send + 'static) {
        *self.plan.lock().expect("the plan") = Box::new(plan);
    }

    /// Method and path of the last request that held these words, and the answer that it was given.
    pub fn last_answer(&self, words: &str) -> (String, Vec<u8>) {
        let answers = self.answers.lock().expect("the answers");
        answers.iter().rfind(|(asked, _)| asked.contains(words)).expect("it was asked").clone()
    }
}

/// One request on one connection.
async fn one(
    mut client: TcpStream,
    server: &str,
    plan: &Mutex<Plan>,
    answers: &Mutex<Vec<(String, Vec<u8>)>>,
) -> std::io::Result<()> {
    let (head, body) = request(&mut client).await?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let asked = format!("{method} {path}");
    let act = plan.lock().expect("the plan")(&Seen { method, path, head: &head });
    match act {
        Act::Refuse(status, code) => {
            let xml = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
            let answer = format!(
                "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{xml}",
                xml.len()
            );
            return client.write_all(answer.as_bytes()).await;
        }
        Act::Instead(answer) => return client.write_all(&answer).await,
        Act::Silence => {
            // Until the client gives up.
            let mut nothing = [0; 1];
            let _read = client.read(&mut nothing).await?;
            return Ok(());
        }
        _ => {}
    }
    let hidden = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        name != "connection" && !(act == Act::Anonymously && name == "authorization")
    };
    let kept: Vec<&str> = head.trim_end().split("\r\n").filter(hidden).collect();
    let mut upstream = TcpStream::connect(server).await?;
    upstream.write_all(format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n")).as_bytes()).await?;
    upstream.write_all(&body).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    answers.lock().expect("the answers").push((asked, answer.clone()));
    match act {
        Act::LoseAnswer => return Ok(()),
        Act::CutAnswer => answer.truncate(answer.len() / 2),
        Act::FlipAnswer => {
            if let Some(last) = answer.last_mut() {
                *last ^= 1;
            }
        }
        _ => {}
    }
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// The head of a request up to its empty line, and its body.
async fn request(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut piece).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    while body.len() < length.unwrap_or(0usize) {
        match client.read(&mut piece).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => body.extend_from_slice(&piece[..n]),
        }
    }
    Ok((head, body))
}

//! One connection to the server: what is written to it, and what it answers.
//!
//! The crate `postgres` runs an async runtime inside of each call, which must not be where one runs already, as it does
//! wherever a page reads one record. So this is its message layer (`postgres-protocol`) over a blocking socket. Statements
//! that need no answer (`BEGIN`, `SAVEPOINT`) travel with the next one that does: they cost no way of their own.

use super::super::{Code, Error, Params, Result};
use super::address::{Host, Server};
use super::{dialect, types};
use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// A server that says nothing for so long is not there any more.
const SILENCE_MAX: Duration = Duration::from_secs(120);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Statements that the server keeps understood for a connection.
const STATEMENTS_MAX: usize = 256;
const READ_BYTES: usize = 16 << 10;

/// A statement that the server has understood.
pub(super) struct Prepared {
    name: String,
    /// Of the connection that it belongs to.
    link: u64,
    params: Vec<u32>,
    pub(super) columns: Vec<Column>,
}

pub(super) struct Column {
    pub(super) name: String,
    pub(super) oid: u32,
}

/// What a statement gave.
#[derive(Default)]
pub(super) struct Answer {
    /// Cells of one row each, as they came.
    pub(super) rows: Vec<Bytes>,
    /// There is more to fetch.
    pub(super) more: bool,
    /// The word of the command with its counts, `INSERT 0 1`.
    pub(super) tag: String,
}

pub(super) struct Link {
    stream: Stream,
    number: u64,
    input: BytesMut,
    output: BytesMut,
    scratch: BytesMut,
    /// Answers for which nobody has waited yet.
    unread: usize,
    /// What one of these said.
    failed: Option<Error>,
    statements: HashMap<String, Arc<Prepared>>,
    named: u64,
    /// Portals that nobody fetches from any more.
    ended: Vec<String>,
    /// Nothing can be said to it any more.
    broken: bool,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Link {
    /// Connects and logs in. `number` tells this connection from others of the session.
    pub(super) fn connect(server: &Server, number: u64, parameters: &[(&str, &str)]) -> Result<Link> {
        let stream = Stream::connect(server).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Error::Server("this user may not use the server's socket"),
            _ => Error::Unreachable,
        })?;
        let mut link = Link {
            stream,
            number,
            input: BytesMut::new(),
            output: BytesMut::new(),
            scratch: BytesMut::new(),
            unread: 0,
            failed: None,
            statements: HashMap::new(),
            named: 0,
            ended: Vec::new(),
            broken: false,
        };
        link.log_in(server, parameters)?;
        Ok(link)
    }

    fn log_in(&mut self, server: &Server, parameters: &[(&str, &str)]) -> Result<()> {
        let who = [("user", server.user.as_str()), ("database", server.database.as_str())];
        let all = who.into_iter().chain(parameters.iter().copied());
        frontend::startup_message(all, &mut self.output).map_err(misuse)?;
        self.flush()?;
        let mut scram = None;
        loop {
            match self.message()? {
                Message::AuthenticationSasl(asked) => {
                    let known = asked.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256)).unwrap_or(false);
                    if !known {
                        return Err(Error::Server("it asks for a password in a way that is not known here"));
                    }
                    let password = password(server)?;
                    let begun = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), &mut self.output)
                        .map_err(misuse)?;
                    scram = Some(begun);
                    self.flush()?;
                }
                Message::AuthenticationSaslContinue(said) => {
                    let begun = scram.as_mut().ok_or(Error::Unreachable)?;
                    begun.update(said.data()).map_err(refused_login)?;
                    frontend::sasl_response(begun.message(), &mut self.output).map_err(misuse)?;
                    self.flush()?;
                }
                Message::AuthenticationSaslFinal(said) => {
                    scram.as_mut().ok_or(Error::Unreachable)?.finish(said.data()).map_err(refused_login)?;
                }
                Message::AuthenticationOk | Message::BackendKeyData(_) => {}
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => return Err(login_error(&body)),
                _ => return Err(Error::Server("it asks for a password in an old way: set it with scram-sha-256")),
            }
        }
    }

    /// Whether it still stands: read what came unasked, and what nobody waited for.
    pub(super) fn is_alive(&mut self) -> bool {
        let settled = self.flush().and_then(|()| self.settle());
        if settled.is_err() || self.failed.take().is_some() || self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let mut chunk = [0; 1024];
        let heard = self.stream.read(&mut chunk);
        let set = self.stream.set_nonblocking(false);
        match heard {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock && set.is_ok(),
            Ok(0) => false,
            Ok(count) => {
                self.input.extend_from_slice(&chunk[..count]);
                // A changed setting may be told at any time; an error says goodbye.
                set.is_ok() && self.input.first() != Some(&b'E')
            }
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Sends a statement whose answer is read with that of the next.
    pub(super) fn later(&mut self, sql: &str) -> Result<()> {
        frontend::query(sql, &mut self.output).map_err(misuse)?;
        self.unread += 1;
        Ok(())
    }

    /// Carries out statements without values; the word of the last.
    pub(super) fn simple(&mut self, sql: &str) -> Result<Answer> {
        frontend::query(sql, &mut self.output).map_err(misuse)?;
        self.answer()
    }

    /// The statement, understood by the server.
    pub(super) fn prepare(&mut self, sql: &str) -> Result<Arc<Prepared>> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(Arc::clone(known));
        }
        self.make_room();
        self.named += 1;
        let name = format!("s{}", self.named);
        let (said, kinds) = dialect::statement(sql);
        frontend::parse(&name, &said, kinds, &mut self.output).map_err(misuse)?;
        frontend::describe(b'S', &name, &mut self.output).map_err(misuse)?;
        frontend::sync(&mut self.output);
        let (mut params, mut columns) = (Vec::new(), Vec::new());
        self.answers(&mut |message| {
            match message {
                Message::ParameterDescription(body) => params = body.parameters().collect().map_err(misuse)?,
                Message::RowDescription(body) => {
                    let fields =
                        body.fields().map(|field| Ok(Column { name: field.name().to_owned(), oid: field.type_oid() }));
                    columns = fields.collect().map_err(misuse)?;
                }
                _ => {}
            }
            Ok(())
        })?;
        let prepared = Arc::new(Prepared { name, link: self.number, params, columns });
        self.statements.insert(sql.to_owned(), Arc::clone(&prepared));
        Ok(prepared)
    }

    fn make_room(&mut self) {
        if self.statements.len() < STATEMENTS_MAX {
            return;
        }
        let output = &mut self.output;
        self.statements.retain(|_, prepared| {
            // Closed with the next request; a name without a zero byte is always written.
            Arc::strong_count(prepared) > 1 || frontend::close(b'S', &prepared.name, output).is_err()
        });
    }

    /// Carries a statement out in `portal`; gives up to `rows_max` rows, 0 for all.
    pub(super) fn execute(
        &mut self,
        prepared: &Prepared,
        (portal, rows_max): (&str, i32),
        params: impl Params,
    ) -> Result<Answer> {
        self.put(prepared, (portal, rows_max), params)?;
        frontend::sync(&mut self.output);
        self.answer()
    }

    /// Sends what [`Link::settle_sent`] reads the answers of.
    pub(super) fn send(&mut self, prepared: &Prepared, params: impl Params) -> Result<()> {
        self.put(prepared, ("", 0), params)
    }

    pub(super) fn settle_sent(&mut self) -> Result<()> {
        frontend::sync(&mut self.output);
        self.answers(&mut |_| Ok(()))
    }

    /// The next rows of a portal.
    pub(super) fn fetch(&mut self, portal: &str, rows_max: i32) -> Result<Answer> {
        frontend::execute(portal, rows_max, &mut self.output).map_err(misuse)?;
        frontend::sync(&mut self.output);
        self.answer()
    }

    /// Says that nobody fetches from a portal any more; the server hears it with the next request.
    pub(super) fn end(&mut self, portal: String) {
        self.ended.push(portal);
    }

    /// The transaction's end ends its portals.
    pub(super) fn forget_portals(&mut self) {
        self.ended.clear();
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let written = self.stream.write_all(&self.output);
        self.output.clear();
        written.map_err(|_| self.breaks())
    }

    fn put(&mut self, prepared: &Prepared, (portal, rows_max): (&str, i32), params: impl Params) -> Result<()> {
        if prepared.link != self.number {
            // The connection on which it was understood is gone, and with it the transaction.
            return Err(Error::Unreachable);
        }
        for portal in self.ended.drain(..) {
            frontend::close(b'P', &portal, &mut self.output).map_err(misuse)?;
        }
        let mut cells: Vec<(i16, Option<Range<usize>>)> = Vec::with_capacity(prepared.params.len());
        let scratch = &mut self.scratch;
        scratch.clear();
        params.bind(&mut |value| {
            let oid = prepared.params.get(cells.len()).ok_or(Error::Refused(Code::Misuse))?;
            let from = scratch.len();
            let format = types::encode(value, *oid, scratch)?;
            cells.push((format.unwrap_or(1), format.map(|_| from..scratch.len())));
            Ok(())
        })?;
        if cells.len() != prepared.params.len() {
            return Err(Error::Refused(Code::Misuse));
        }
        let formats: Vec<i16> = cells.iter().map(|(format, _)| *format).collect();
        let scratch = &self.scratch;
        let write = |(_, range): (i16, Option<Range<usize>>), out: &mut BytesMut| match range {
            None => Ok(IsNull::Yes),
            Some(range) => {
                out.extend_from_slice(scratch.get(range).unwrap_or_default());
                Ok(IsNull::No)
            }
        };
        frontend::bind(portal, &prepared.name, formats, cells, write, [1], &mut self.output)
            .map_err(|_| Error::Refused(Code::Misuse))?;
        frontend::execute(portal, rows_max, &mut self.output).map_err(misuse)
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut answer = Answer::default();
        self.answers(&mut |message| {
            match message {
                Message::DataRow(body) => answer.rows.push(body.buffer_bytes().clone()),
                Message::PortalSuspended => answer.more = true,
                Message::CommandComplete(body) => answer.tag = body.tag().map_err(misuse)?.to_owned(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(answer)
    }

    /// Sends what is written and reads the answer to its end, and before it those that nobody waited for.
    fn answers(&mut self, each: &mut dyn FnMut(Message) -> Result<()>) -> Result<()> {
        self.flush()?;
        self.settle()?;
        let mut outcome = Ok(());
        loop {
            match self.message()? {
                Message::ReadyForQuery(_) => break,
                Message::ErrorResponse(body) => outcome = outcome.and(Err(error_of(&body))),
                message if outcome.is_ok() => outcome = each(message),
                _ => {}
            }
        }
        // What failed before is why this failed.
        self.failed.take().map_or(outcome, Err)
    }

    fn settle(&mut self) -> Result<()> {
        while self.unread > 0 {
            match self.message()? {
                Message::ReadyForQuery(_) => self.unread -= 1,
                Message::ErrorResponse(body) => {
                    self.failed.get_or_insert(error_of(&body));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn message(&mut self) -> Result<Message> {
        loop {
            match Message::parse(&mut self.input) {
                Ok(Some(
                    Message::NoticeResponse(_) | Message::ParameterStatus(_) | Message::NotificationResponse(_),
                )) => {}
                Ok(Some(message)) => return Ok(message),
                Ok(None) => self.read_more()?,
                Err(_) => return Err(self.breaks()),
            }
        }
    }

    fn read_more(&mut self) -> Result<()> {
        let mut chunk = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.breaks()),
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(self.breaks()),
            }
        }
    }

    fn breaks(&mut self) -> Error {
        self.broken = true;
        Error::Unreachable
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.broken {
            // So that the server does not have to notice.
            frontend::terminate(&mut self.output);
            let _ = self.stream.write_all(&self.output);
        }
    }
}

impl Stream {
    fn connect(server: &Server) -> io::Result<Stream> {
        match &server.host {
            Host::Socket(folder) => {
                let stream = UnixStream::connect(folder.join(format!(".s.PGSQL.{}", server.port)))?;
                stream.set_read_timeout(Some(SILENCE_MAX))?;
                stream.set_write_timeout(Some(SILENCE_MAX))?;
                Ok(Stream::Unix(stream))
            }
            Host::Loopback(address) => {
                let stream = TcpStream::connect_timeout(&SocketAddr::new(*address, server.port), CONNECT_MAX)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SILENCE_MAX))?;
                stream.set_write_timeout(Some(SILENCE_MAX))?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_nonblocking(nonblocking),
            Stream::Tcp(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(into),
            Stream::Tcp(stream) => stream.read(into),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tcp(stream) => stream.write_all(bytes),
        }
    }
}

fn password(server: &Server) -> Result<zeroize::Zeroizing<String>> {
    let Some(file) = &server.password else {
        return Err(Error::Server("it asks for a password: name its file as database_password in appliance.toml"));
    };
    let read = std::fs::read_to_string(file);
    let mut text = zeroize::Zeroizing::new(read.map_err(|_| Error::Server("the file of its password cannot be read"))?);
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(text)
}

fn misuse(_: io::Error) -> Error {
    Error::Refused(Code::Misuse)
}

const NO_ENTRY: Error = Error::Server("it does not let this user in: see its pg_hba.conf and the password");

fn refused_login(_: io::Error) -> Error {
    NO_ENTRY
}

fn login_error(body: &ErrorResponseBody) -> Error {
    match &code_of(body) {
        b"28P01" | b"28000" => NO_ENTRY,
        b"3D000" => Error::Server(
            "there is no database of this name: make it with `createdb --template=template0 --encoding=UTF8 --locale=C`",
        ),
        _ => error_of(body),
    }
}

/// What an error of the server means. Its text quotes values, so only its code is looked at.
fn error_of(body: &ErrorResponseBody) -> Error {
    let code = code_of(body);
    match &code {
        b"53100" => Error::Full,
        // Too many connections or locks; a lock that did not come in time; two who waited for each other.
        b"53000" | b"53200" | b"53300" | b"55P03" | b"57014" | b"40001" | b"40P01" => Error::Busy,
        b"57P01" | b"57P02" | b"57P03" | b"57P05" => Error::Unreachable,
        b"XX001" | b"XX002" => Error::Damaged,
        b"22021" => Error::ZeroCharacter,
        b"54000" => Error::TooLong,
        [b'0', b'8', ..] => Error::Unreachable,
        [b'2', b'3', ..] => Error::Constraint(Code::Postgres(code)),
        _ => Error::Refused(Code::Postgres(code)),
    }
}

fn code_of(body: &ErrorResponseBody) -> [u8; 5] {
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        if field.type_() == b'C' {
            return field.value_bytes().try_into().unwrap_or(*b"?????");
        }
    }
    *b"?????"
}

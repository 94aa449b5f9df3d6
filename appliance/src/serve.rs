//! `appliance serve` and `appliance probe`: what listens, what ticks, and how it ends.

use crate::access::{Actor, Program};
use crate::audit::{Action, Event};
use crate::clock::Clock;
use crate::look_back::Desk;
use crate::messages::Channels;
use crate::messages::http::Gateway;
use crate::messages::mail::Mailer;
use crate::messages::reminders::Plan;
use crate::ops::{Operations, golden, wire};
use crate::probe::{self, Restored};
use crate::settings::{GatewaySettings, Settings};
use crate::store::{Mode, Store, StoreError, Tx};
use crate::upgrade::{self, Upgraded};
use crate::{downtime, fhir, web};
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// A canary this often: the finest answer to "how old is what came back?".
const CANARY_EVERY: Duration = Duration::from_secs(60);

/// Runs the service until it is told to stop.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    runtime()?.block_on(serve(settings))
}

/// Answers for restored data in `dir` on `socket` until it is told to stop.
pub fn run_probe(dir: &Path, socket: &Path, allowed_uids: Vec<u32>) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let listener = wire::bind(socket).context("the probe's socket: choose a free path of at most 107 bytes")?;
        let restored = Restored::open(dir);
        log::info!("ready");
        service::ready();
        tokio::select! {
            () = probe::serve(listener, restored, allowed_uids) => {}
            () = service::shutdown() => {}
        }
        service::stopping();
        let _ = std::fs::remove_file(socket);
        Ok(())
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot start")
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    service::spawn_watchdog();
    let clock = Clock::system();
    let upgraded = upgrade::before_serving(&settings, &clock).await?;
    let store = Store::open(settings.place(), clock, Mode::Exclusive)?;
    start(&store, &settings, upgraded).await?;
    let tls = service::tls::server_config(&settings.tls_cert, &settings.tls_key, None)
        .context("tls_cert and tls_key in appliance.toml: give the PEM files of a certificate and its key")?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .context("listen in appliance.toml: the address cannot be used; choose a free one of this machine")?;
    let ops_listener = wire::bind(&settings.ops_socket)
        .context("ops_socket in appliance.toml: the socket cannot be made; choose a folder of this user")?;
    let operations = Arc::new(Operations::new(store.clone(), &settings)?);
    let pages = web::Web::new(
        store.clone(),
        web::Settings {
            practice_name: settings.practice_name.clone(),
            practice_address: settings.practice_address.clone(),
            practice_phone: settings.practice_phone.clone(),
            zone: settings.time_zone,
            idle_lock_s: settings.idle_lock_s,
            bases: bases(&settings, settings.listen.port()),
            portal: settings.portal_listen.and_then(|at| bases(&settings, at.port()).into_iter().next()),
            has_mail: settings.mail.is_some(),
            downtime: settings.downtime.clone(),
            look_back: Some(Desk::open(&settings.data_dir, settings.backup.verifier_socket.clone())?),
        },
    );
    let routes =
        [fhir::http::routes(&store), fhir::smart::routes(&store, bases(&settings, settings.listen.port()))].concat();
    let app = web::app(&pages, routes);
    let mut tasks = vec![
        tokio::spawn(operations.serve(ops_listener)),
        tokio::spawn(canaries(store.clone())),
        tokio::spawn(messages(&store, &settings)?),
    ];
    if let Some(plan) = &settings.downtime {
        let (practice, zone) = (settings.practice_name.clone(), settings.time_zone);
        tasks.push(tokio::spawn(downtime::work(store.clone(), plan.clone(), practice, zone)));
    }
    let doors = [
        ("booking_listen", settings.booking_listen, web::public_app(&pages)),
        ("portal_listen", settings.portal_listen, web::portal_app(&pages)),
    ];
    for (key, address, app) in doors {
        let Some(address) = address else { continue };
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("{key} in appliance.toml: the address cannot be used; choose a free one of this machine")
        })?;
        let tls = Some(Arc::clone(&tls));
        tasks.push(tokio::spawn(async move {
            service::http::serve(listener, tls, app, service::http::Limits::default(), service::shutdown()).await;
        }));
    }
    log::info!(port = settings.listen.port(); "ready");
    service::ready();
    service::http::serve(listener, Some(tls), app, service::http::Limits::default(), service::shutdown()).await;
    service::stopping();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let _ = std::fs::remove_file(&settings.ops_socket);
    log::info!("stopped");
    Ok(())
}

/// The work of sending what the practice says to the outside.
fn messages(store: &Store, settings: &Settings) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let gateway = |section: &str, settings: &Option<GatewaySettings>| {
        let made = settings.as_ref().map(Gateway::new).transpose();
        made.map_err(|problem| anyhow::anyhow!("[{section}] in appliance.toml: {problem}"))
    };
    let mail = settings.mail.as_ref().map(|mail| Mailer::new(mail, &settings.practice_name)).transpose();
    let channels = Channels {
        mail: mail.map_err(|problem| anyhow::anyhow!("[mail] in appliance.toml: {problem}"))?,
        sms: gateway("sms", &settings.sms)?,
        webhook: gateway("webhook", &settings.webhook)?,
    };
    if settings.booking_listen.is_some() && channels.mail.is_none() {
        anyhow::bail!(
            "booking_listen in appliance.toml needs [mail]: online bookings are confirmed by a code in a mail"
        );
    }
    let plan = Plan { hours: settings.reminder_hours };
    Ok(crate::messages::work(store.clone(), channels, settings.time_zone, settings.practice_name.clone(), plan))
}

/// The addresses under which programs and browsers reach the listener of this port, the first in links.
fn bases(settings: &Settings, port: u16) -> Vec<String> {
    let names = settings.public_names.iter().cloned();
    let address = |host: String| if port == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") };
    names.chain([settings.listen.ip().to_string()]).map(address).collect()
}

/// Tells the audit of the start, writes the first canary and notes the zone in which days begin here.
async fn start(store: &Store, settings: &Settings, upgraded: Option<Upgraded>) -> Result<(), StoreError> {
    let zone = settings.time_zone.name();
    let actor = Actor::program(Program::Operations);
    let begin = move |tx: &mut Tx<'_>| {
        tx.remember(golden::TIME_ZONE_KEY, zone)?;
        if let Some(upgraded) = upgraded {
            tx.note(Event::new(Action::Upgrade, "schema", &upgraded.from.to_string()));
        }
        tx.note(Event::new(Action::Start, "service", env!("CARGO_PKG_VERSION")));
        Ok::<_, StoreError>(())
    };
    store.write(&actor, begin).await?;
    store.canary().await
}

async fn canaries(store: Store) {
    loop {
        tokio::time::sleep(CANARY_EVERY).await;
        if let Err(error) = store.canary().await {
            log::error!(error = error.to_string().as_str(); "canary.failed");
        }
    }
}

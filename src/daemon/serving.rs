//! The daemon between readiness and its end: signals, reload, the service manager's watchdog, memory
//! pressure, and whether anybody uses it. Decides nothing itself: see `watch`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ladder::{self, Ladder, Rung};
use super::watch::{self, Heart, Idle, Pulse};
use super::{Reload, Settings};
use crate::bus::Presence;
use crate::config::Key;
use crate::door::Door;
use crate::service::{Pressure, Service};
use crate::systemd::{self, Marks};

/// Handled from the start: what arrives while the model is read is not lost.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves when the daemon is told to end.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How often the ladder is looked at while there is something to decide.
const STEP: Duration = Duration::from_millis(100);

/// Why the daemon ends although nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Told,
    Unused,
}

impl End {
    pub fn line(self) -> &'static str {
        match self {
            End::Told => "stopping: running answers may end",
            End::Unused => "unused: ending until the next caller",
        }
    }
}

pub struct Serving<'a> {
    service: &'a Service,
    door: &'a Arc<Door>,
    presence: Option<&'a Presence>,
    drain: Duration,
    idle_exit: Option<Duration>,
    heart: Heart,
    idle: Idle,
    ladder: Ladder,
    marks: Marks,
    /// What the manager was told last.
    line: String,
}

impl<'a> Serving<'a> {
    /// Tells the manager that we are ready.
    pub fn new(
        settings: &Settings,
        service: &'a Service,
        door: &'a Arc<Door>,
        presence: Option<&'a Presence>,
    ) -> Serving<'a> {
        let mut serving = Serving {
            service,
            door,
            presence,
            drain: settings.drain,
            idle_exit: settings.idle_exit,
            heart: Heart::default(),
            ladder: Ladder::default(),
            marks: Marks::watch(),
            idle: Idle::new(Instant::now()),
            line: String::new(),
        };
        serving.line = serving.pulse().line(&service.card().id);
        systemd::ready(&serving.line);
        serving
    }

    /// How long running answers may take to end.
    pub fn drain(&self) -> Duration {
        self.drain
    }

    pub async fn until_the_end(&mut self, signals: &mut Signals, reload: &mut Reload<'_>) -> End {
        let Signals {
            terminate,
            interrupt,
            hangup,
        } = signals;
        let watchdog = systemd::watchdog();
        let mut tick = tokio::time::interval(watch::tick(watchdog));
        // After a stopped clock (suspend, SIGSTOP) one look is enough.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let pressure = systemd::Pressure::watch();
        loop {
            tokio::select! {
                _ = terminate.recv() => return End::Told,
                _ = interrupt.recv() => return End::Told,
                _ = hangup.recv() => self.reload(reload),
                () = pressure.felt() => {
                    self.ladder.tell(Instant::now());
                    self.climb();
                }
                () = self.marks.changed() => self.climb(),
                () = tokio::time::sleep(STEP), if !self.ladder.is_idle() => self.climb(),
                _ = tick.tick() => {
                    if self.marks.bytes().is_some() {
                        self.climb();
                    }
                    let pulse = self.pulse();
                    // Fed by turns of the engine's loop and by nothing else: neither a pass that
                    // never ends nor a stuck runtime keeps the daemon alive.
                    if self.heart.beats(pulse) && watchdog.is_some() {
                        systemd::alive();
                    }
                    self.say(pulse);
                    if self.idle.is_over(self.idle_exit, Instant::now(), pulse) {
                        log::info!("unused: ending until the next caller");
                        return End::Unused;
                    }
                }
            }
        }
    }

    /// Waits for those who came at the last moment, not longer than `patience`.
    pub async fn until_unused(&self, patience: Duration) {
        let until = Instant::now() + patience;
        // A moment first: a call may have been read and not yet be at the scheduler.
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !self.pulse().in_use() || Instant::now() >= until {
                return;
            }
        }
    }

    /// One rung, if it is time for one. What can be given back at once is, before anything is said: a
    /// line of the log asks for memory too.
    fn climb(&mut self) {
        let (service, held, was) = (self.service, self.service.held(), self.ladder.rung);
        let mark = self.marks.bytes();
        let is_over = ladder::is_over(held, mark);
        let changed = self.ladder.step(Instant::now(), held, mark);
        match changed {
            Some(Rung::Shed) if is_over && was < Rung::Shed => service.halve(),
            Some(Rung::Rest) if is_over && was < Rung::Rest => service.forget(),
            _ => {}
        }
        let room = mark.map_or(u64::MAX, |mark| ladder::room(held, mark));
        service.set_bound(usize::try_from(room).unwrap_or(usize::MAX));
        if is_over {
            // To give it back may have taken longer than a word lasts.
            self.ladder.tell(Instant::now());
        }
        let Some(rung) = changed else { return };
        service.set_pressure(Pressure {
            name: rung.name(),
            rung: rung as u32,
            turns_away: rung == Rung::Refuse,
        });
        service.hold_off(rung >= Rung::Hold);
        log::info!(
            "memory: {} after {}; {} bytes of kept states, {} of our own, {} of mapped files",
            rung.name(),
            was.name(),
            held.states,
            held.own,
            held.files
        );
        if let Some(presence) = self.presence {
            presence.pressure_changed();
        }
        let gives_up = match rung {
            Rung::Shed if was < rung => Service::shed,
            Rung::Rest if was < rung => Service::rest,
            _ => return,
        };
        if !is_over {
            let door = self.door.clone();
            // It waits for the disk; whether it is done is seen in the figures.
            tokio::task::spawn_blocking(move || door.service.get().map(gives_up));
        }
    }

    fn pulse(&self) -> Pulse {
        let stats = self.service.stats();
        Pulse {
            turns: stats.heartbeat.load(Relaxed),
            running: stats.running.load(Relaxed),
            queued: self.service.queued(),
            conversations: self.presence.map_or(0, Presence::in_use),
            connections: self.door.traffic.open.load(Relaxed),
            arrivals: self.door.traffic.taken.load(Relaxed) + stats.requests.load(Relaxed),
        }
    }

    fn say(&mut self, pulse: Pulse) {
        let line = pulse.line(&self.service.card().id);
        if line != self.line {
            systemd::status(&line);
            self.line = line;
        }
    }

    /// Puts in force what can be; who runs or waits notices nothing. A configuration that is wrong
    /// changes nothing.
    fn reload(&mut self, reload: &mut Reload) {
        systemd::reloading();
        let refused = match reload() {
            Ok(new) => match new.settings.admission() {
                Ok(admission) => {
                    self.drain = new.settings.drain;
                    self.idle_exit = new.settings.idle_exit;
                    self.service.renew(admission, new.settings.scheduler);
                    report(&new.changed);
                    None
                }
                Err(e) => Some(format!("allowed_groups: {e}")),
            },
            Err(e) => Some(e),
        };
        self.line = match refused {
            None => self.pulse().line(&self.service.card().id),
            Some(why) => {
                log::error!("the old configuration stays: {why}");
                format!("the old configuration stays: {why}")
            }
        };
        systemd::ready(&self.line);
    }
}

fn report(changed: &[&Key]) {
    let paths = |live: bool| {
        let keys = changed.iter().filter(|key| key.live == live);
        keys.map(|key| key.path()).collect::<Vec<_>>().join(", ")
    };
    let (now, later) = (paths(true), paths(false));
    if now.is_empty() {
        log::info!("configuration read again");
    } else {
        log::info!("configuration read again; changed: {now}");
    }
    if !later.is_empty() {
        log::warn!("changed, but in force only after a restart: {later}");
    }
}

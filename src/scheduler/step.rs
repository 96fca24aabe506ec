//! One pass: its lanes are gathered from the requests that were granted one, it is run with the
//! masks computed beside it, and what came is handed back. Decides nothing about who is granted.

use std::time::Instant;

use super::beside::Beside;
use super::model::{Fault, Model};
use super::plan::Grant;
use super::running::{Came, House, Running};
use crate::engine::{Lane, Logits, PassError};

/// A request of this pass.
struct Guest<'r, M: Model> {
    running: &'r mut Running<M>,
    n_lent: usize,
    logits: Vec<Logits>,
    fault: Option<Fault>,
}

/// Runs one pass and returns how many lanes it had. A request that cannot go on is told why; the
/// others do.
pub fn step<M: Model>(
    requests: &mut [Running<M>],
    grants: &[Grant],
    beside: &mut Beside,
    house: &mut House<'_, M>,
) -> usize {
    let mut lent = Vec::new();
    let mut guests = Vec::with_capacity(grants.len());
    for running in requests {
        let Some(grant) = grants.iter().find(|g| g.who == running.standing) else {
            continue;
        };
        let (constraints, fault) = match running.prepare(grant.n, house.model) {
            Ok(constraints) => (constraints, None),
            Err(fault) => (Vec::new(), Some(fault)),
        };
        guests.push(Guest {
            running,
            n_lent: constraints.len(),
            logits: Vec::new(),
            fault,
        });
        lent.extend(constraints);
    }
    let pass = || forward(&mut guests, house.model);
    let begun = Instant::now();
    let (n_lanes, lent) = beside.run(lent, pass);
    let took = begun.elapsed();
    let mut lent = lent.into_iter();
    for guest in guests {
        let came = Came {
            lent: lent.by_ref().take(guest.n_lent).collect(),
            logits: guest.logits,
            took,
        };
        let went = match guest.fault {
            Some(fault) => Err(fault),
            None => guest.running.take(came, house),
        };
        if let Err(fault) = went {
            let uid = guest.running.standing.uid;
            log::error!("a request of user {uid} failed: {fault}");
            // It stays until its caller has room to hear this.
            guest.running.fail(&fault);
        }
    }
    n_lanes
}

/// One pass over the lanes of all who have no fault; once more without a lane that is refused.
fn forward<M: Model>(guests: &mut [Guest<'_, M>], model: &mut M) -> usize {
    loop {
        let mut lanes: Vec<Lane<'_, M::Sequence>> = Vec::new();
        let mut owners = Vec::new();
        for (at, guest) in guests.iter_mut().enumerate() {
            if guest.fault.is_none() {
                lanes.extend(guest.running.lanes());
                owners.resize(lanes.len(), at);
            }
        }
        if lanes.is_empty() {
            return 0;
        }
        let passed = model.forward(&mut lanes);
        drop(lanes);
        match passed {
            Ok(logits) => {
                for (&at, logits) in owners.iter().zip(logits) {
                    guests[at].logits.push(logits);
                }
                return owners.len();
            }
            Err(PassError::Refused { lane, why }) if lane < owners.len() => {
                let fault = PassError::Refused { lane, why };
                guests[owners[lane]].fault = Some(fault.into());
            }
            // What all the lanes share has failed, and their states may be broken.
            Err(e) => {
                let words = e.to_string();
                let taking_part = guests.iter_mut().filter(|g| g.fault.is_none());
                taking_part.for_each(|g| g.fault = Some(Fault::Together(words.clone())));
                return owners.len();
            }
        }
    }
}

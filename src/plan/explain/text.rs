//! An explanation for people: one screen, each line with the place that says so.
//! Words alone: what is shown was found by the rooms beside this one.

use std::fmt;

use super::{Candidate, Chosen, Explanation};
use crate::error::Cause;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        match &self.route {
            Some(chosen) => chosen.fmt(f)?,
            None => writeln!(
                f,
                "\nno route takes it: {}",
                self.refused.as_deref().unwrap_or("")
            )?,
        }
        if !self.others.is_empty() {
            writeln!(f, "\nother routes")?;
        }
        for other in &self.others {
            line(
                f,
                &format!("{}: {}", other.id, other.why),
                other.at.as_deref(),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nroute")?;
        line(
            f,
            &format!("{}: {}", self.id, self.matches),
            self.at.as_deref(),
        )?;
        line(f, &format!("leads to {}", self.target), None)?;
        if !self.policies.is_empty() {
            writeln!(f, "\npolicies, in order")?;
        }
        for policy in &self.policies {
            line(
                f,
                &format!("{}: {}", policy.name, policy.says),
                policy.at.as_deref(),
            )?;
        }
        for upstream in &self.upstreams {
            upstream.fmt(f)?;
        }
        if !self.ladder.is_empty() {
            writeln!(f, "\nladder")?;
        }
        for rung in &self.ladder {
            let on: Vec<&str> = rung.on.iter().map(|cause: &Cause| cause.as_str()).collect();
            line(
                f,
                &format!("{} on {}", rung.step, on.join(", ")),
                rung.at.as_deref(),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nupstream")?;
        let head = format!("{}: weight {}, {}", self.name, self.weight, self.balance);
        line(f, &head, self.at.as_deref())?;
        if let Some(breaker) = &self.breaker {
            line(f, &format!("  {breaker}"), None)?;
        }
        for endpoint in &self.endpoints {
            let mut text = format!("  {} {}", endpoint.address, endpoint.state);
            if endpoint.weight != 1 {
                text += &format!(", weight {}", endpoint.weight);
            }
            if endpoint.priority != 0 {
                text += &format!(", priority {}", endpoint.priority);
            }
            if let Some(breaker) = &endpoint.breaker {
                text += &format!(", {breaker}");
            }
            line(f, &text, None)?;
        }
        if self.panic {
            line(f, "  too few endpoints are usable: all are used", None)?;
        }
        Ok(())
    }
}

/// Text, and the place at the right.
fn line(f: &mut fmt::Formatter<'_>, text: &str, at: Option<&str>) -> fmt::Result {
    match at {
        Some(at) => writeln!(f, "  {text:<64}  {at}"),
        None => writeln!(f, "  {text}"),
    }
}

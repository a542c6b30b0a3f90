//! From a score to a probability.

/// Platt's scaling of log-odds.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub struct Platt {
    /// What log-odds are multiplied by; below 1 the scores were too sure of themselves.
    pub slope: f64,
    /// What is added then.
    pub intercept: f64,
}

/// Newton steps; it is at rest after about ten.
const STEPS: usize = 50;

impl Platt {
    /// The calibrated log-odds.
    pub fn apply(&self, log_odds: f64) -> f64 {
        self.slope * log_odds + self.intercept
    }
}

/// Fits slope and intercept by maximum likelihood (Platt 1999; Newton's method), each case with its weight. On predictions it gives
/// the calibration slope and intercept of Cox (1958): 1 and 0 are right. The identity if the cases do not settle it (one class
/// only, or one score).
pub fn platt(log_odds: &[f64], positive: &[bool], weights: &[f64]) -> Platt {
    let identity = Platt { slope: 1.0, intercept: 0.0 };
    let mut platt = identity;
    for _ in 0..STEPS {
        let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for ((x, positive), w) in log_odds.iter().zip(positive).zip(weights) {
            let p = super::sigmoid(platt.apply(*x));
            let error = w * (p - f64::from(u8::from(*positive)));
            let bend = w * p * (1.0 - p);
            ga += error * x;
            gb += error;
            haa += bend * x * x;
            hab += bend * x;
            hbb += bend;
        }
        let determinant = haa * hbb - hab * hab;
        let (da, db) = ((hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant);
        if !(da.is_finite() && db.is_finite()) {
            return identity;
        }
        // Far from the goal a whole step may overshoot.
        let damped = 1.0 / f64::max(1.0, da.abs().max(db.abs()));
        platt.slope -= damped * da;
        platt.intercept -= damped * db;
        if da.abs() + db.abs() < 1e-10 {
            break;
        }
    }
    platt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_bent_is_straightened() {
        // Ten thousand cases on a grid of log-odds; of each, the true share is positive.
        let (mut scores, mut positive) = (Vec::new(), Vec::new());
        for step in 0..100 {
            let log_odds = -4.0 + 0.05 * f64::from(step);
            let hits = (super::super::sigmoid(log_odds) * 1_000.0).round() as usize;
            for case in 0..1_000 {
                scores.push(2.0 * log_odds + 1.0);
                positive.push(case < hits);
            }
        }
        let fitted = platt(&scores, &positive, &vec![1.0; scores.len()]);
        assert!((fitted.slope - 0.5).abs() < 0.01, "{fitted:?}");
        assert!((fitted.intercept + 0.5).abs() < 0.01, "{fitted:?}");
        // A weight counts like so many cases.
        let ones = platt(&[0.0, 0.0, 1.0, 1.0, 1.0], &[false, true, false, true, true], &[1.0; 5]);
        let weighted =
            platt(&[0.0, 0.0, 1.0, 1.0], &[false, true, false, true], &[1.0, 1.0, 1.0, 2.0]);
        assert!((ones.slope - weighted.slope).abs() < 1e-9);
        assert!((ones.slope - 2.0_f64.ln()).abs() < 1e-6, "{ones:?}");
    }

    #[test]
    fn what_settles_nothing_changes_nothing() {
        let identity = Platt { slope: 1.0, intercept: 0.0 };
        assert_eq!(platt(&[], &[], &[]), identity);
        assert_eq!(platt(&[2.0, 2.0], &[true, false], &[1.0; 2]), identity);
    }
}

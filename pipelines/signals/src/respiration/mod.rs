//! Respiration rate from the chest's impedance, the PPG and the ECG.
//!
//! Breathing is measured directly by impedance pneumography, and it modulates the pulse in three ways (Charlton et
//! al., *Physiol. Meas.* 37:610, 2016 and *IEEE Rev. Biomed. Eng.* 11:2, 2018): its height, its baseline and its
//! frequency. From the ECG the height of the R peaks and the RR intervals do the same. Each of these six gives a rate
//! and a quality for itself; [`respiration_rate`] fuses them by quality in the manner of the Smart Fusion (Karlen et al.,
//! *IEEE Trans. Biomed. Eng.* 60(7):1946, 2013), which refuses where its sources disagree.
//!
//! One call judges one window, for which 32 s are usual ([`WINDOW_S`]). It knows nothing of the window before, so
//! that windows cut from a stream at the same samples give the same rates however the stream was cut into frames.
//!
//! # Constants
//! From the papers: the window, the shares of [`MIN_RATE`] to [`MAX_RATE`] and of crests that stand out, the rules of the
//! sources' agreement. Chosen on the BIDMC recordings of half of the people (`haar evaluate respiration --half even`; the odd
//! half was looked at beside it): [`MIN_MODULATION_RATE`] of 4, 6, 7 and 8, the weighting of spectra of five powers, [`MIN_QUALITY`] of five
//! values, the scales of both qualities, and that PPG and ECG count as one and a half beside impedance. BIDMC's annotators
//! marked the impedance, so that it is flattered there.
//!
//! # Non-guarantees
//! Impedance follows the chest, not the air: with a closed airway it goes on, and the heart's own beat shows in it. The
//! modulations vanish in atrial fibrillation, with a pacemaker and in autonomic failure, and above half the heart rate there is
//! nothing to be had from them. A refusal is a result.

mod fusion;
mod modulation;
mod periodicity;

pub use fusion::{
    AGREEMENT, Estimate, MAX_RATE, MIN_MODULATION_RATE, MIN_QUALITY, MIN_RATE, MIN_WINDOW_S,
    Modulation, Refusal, Respiration, Signals, Source, WINDOW_S, estimates, fuse, respiration_rate,
};

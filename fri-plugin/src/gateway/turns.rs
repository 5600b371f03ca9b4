//! Turns of asynchronous events: so many at once, so many of them one function's, and the functions that wait one after another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// Gives turns. A handle: copies are of the same one.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_each: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    functions: HashMap<String, Function>,
    /// Functions that wait, the next first; each once.
    order: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Function {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn, given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    function: String,
}

impl Turns {
    /// So many at once, and so many of one function.
    pub fn new(most: usize, most_each: usize) -> Turns {
        Turns(Arc::new(Shared { most: most.max(1), most_each: most_each.max(1), state: Mutex::default() }))
    }

    /// Waits for a function's turn. Dropped, it waits no more.
    pub async fn turn(&self, function: &str) -> Turn {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = crate::daemon::lock(&self.0.state);
            let waiting = &mut state.functions.entry(function.to_owned()).or_default().waiting;
            waiting.push_back(sender);
            if waiting.len() == 1 {
                state.order.push_back(function.to_owned());
            }
        }
        self.0.give();
        match receiver.await {
            Ok(turn) => turn,
            // Not so: a sender is used, or goes with the last copy of this.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Shared {
    /// Gives the turns that are free.
    fn give(self: &Arc<Shared>) {
        // Of somebody who has gone in this moment: given back without the lock.
        let mut unwanted = Vec::new();
        let mut state = crate::daemon::lock(&self.state);
        while state.running < self.most {
            let State { functions, order, running } = &mut *state;
            let may = |name: &String| functions.get(name).is_some_and(|f| f.running < self.most_each);
            let Some(name) = order.iter().position(may).and_then(|at| order.remove(at)) else { break };
            let Some(function) = functions.get_mut(&name) else { continue };
            let next = std::iter::from_fn(|| function.waiting.pop_front()).find(|sender| !sender.is_closed());
            if let Some(sender) = next {
                function.running += 1;
                *running += 1;
                let turn = Turn { shared: self.clone(), function: name.clone() };
                unwanted.extend(sender.send(turn).err());
            }
            if !function.waiting.is_empty() {
                order.push_back(name);
            } else if function.running == 0 {
                functions.remove(&name);
            }
        }
        drop(state);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = crate::daemon::lock(&self.shared.state);
        state.running = state.running.saturating_sub(1);
        if let Some(function) = state.functions.get_mut(&self.function) {
            function.running = function.running.saturating_sub(1);
            if function.running == 0 && function.waiting.is_empty() {
                state.functions.remove(&self.function);
            }
        }
        drop(state);
        self.shared.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::pin::pin;

    fn now(turns: &Turns, function: &str) -> Option<Turn> {
        turns.turn(function).now_or_never()
    }

    #[tokio::test]
    async fn a_slow_function_leaves_places_to_others() {
        let turns = Turns::new(4, 2);
        let slow = [now(&turns, "slow").unwrap(), now(&turns, "slow").unwrap()];
        assert!(now(&turns, "slow").is_none());
        let waiting: Vec<_> = (0..100).map(|_| Box::pin(turns.turn("slow"))).collect();
        let mut waiting = futures::future::join_all(waiting);
        assert!((&mut waiting).now_or_never().is_none());
        let quick = [now(&turns, "quick").unwrap(), now(&turns, "quick").unwrap()];
        assert!(now(&turns, "third").is_none(), "all are taken");
        drop((quick, waiting));
        assert!(now(&turns, "third").is_some());
        drop(slow);
        assert!(crate::daemon::lock(&turns.0.state).functions.is_empty());
    }

    #[tokio::test]
    async fn functions_that_wait_get_their_turns_one_after_another() {
        let turns = Turns::new(1, 8);
        let mut turn = now(&turns, "first").unwrap();
        let mut a = [pin!(turns.turn("a")), pin!(turns.turn("a"))];
        let mut b = pin!(turns.turn("b"));
        for waiting in &mut a {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        assert!(b.as_mut().now_or_never().is_none());
        let mut order = vec![turn.function.clone()];
        let [mut one, mut two] = a;
        for _ in 0..3 {
            drop(turn);
            turn = tokio::select! {
                biased;
                turn = &mut one, if !order.contains(&"a".to_owned()) => turn,
                turn = &mut b, if !order.contains(&"b".to_owned()) => turn,
                turn = &mut two => turn,
            };
            order.push(turn.function.clone());
        }
        assert_eq!(order, ["first", "a", "b", "a"]);
    }
}

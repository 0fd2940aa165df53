// rust.rs - a guest in Rust with its standard library, linked statically; glue.c has the exports.
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::Write;
use std::os::raw::c_char;
use std::sync::{mpsc, Arc, Mutex};
use std::thread;

extern "C" {
    fn program_serve();
}

fn words(input: &str) -> String {
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    for word in input.split_whitespace() {
        *count.entry(word).or_default() += 1;
    }
    println!("{} words", count.len());
    count.iter().map(|(w, n)| format!("{w}={n}")).collect::<Vec<_>>().join(" ")
}

#[no_mangle]
pub unsafe extern "C" fn program_text(input: *const c_char, to: *mut c_char, cap: usize) {
    let said = words(CStr::from_ptr(input).to_str().unwrap_or("?"));
    let n = said.len().min(cap - 1);
    std::ptr::copy_nonoverlapping(said.as_ptr() as *const c_char, to, n);
    *to.add(n) = 0;
}

fn sum_of_threads() -> i32 {
    let (send, receive) = mpsc::channel();
    let sum = Arc::new(Mutex::new(0));
    let team: Vec<_> = (1..=8)
        .map(|i| {
            let (send, sum) = (send.clone(), sum.clone());
            thread::spawn(move || {
                thread::sleep(std::time::Duration::from_millis(5));
                *sum.lock().unwrap() += i;
                send.send(i).unwrap();
            })
        })
        .collect();
    drop(send);
    let received: i32 = receive.iter().sum();
    for t in team {
        t.join().unwrap();
    }
    let total = *sum.lock().unwrap();
    received * 100 + total
}

// 1: threads; 2: a panic that is caught; 3: one in a thread; else: what does not unwind, an abort
#[no_mangle]
pub extern "C" fn program_number(what: i32) -> i32 {
    match what {
        1 => sum_of_threads(),
        2 => std::panic::catch_unwind(|| if what == 2 { panic!("as asked") }).map_or(7, |_| 0),
        3 => thread::spawn(|| -> i32 { panic!("in a thread") }).join().map_or(8, |n| n),
        _ => std::process::abort(),
    }
}

fn main() {
    std::io::stdout().flush().unwrap();
    unsafe { program_serve() }
}

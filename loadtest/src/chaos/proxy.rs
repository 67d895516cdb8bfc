//! Links between processes and the router that can be hurt: a TCP proxy that cuts, stalls one way, slows down, leaves one end
//! half open. It may not look at what it carries.
//!
//! ```text
//!   process ◀══════▶ link ◀══════▶ router          one link for each process, any number of connections on it
//!            member          server
//! ```

use super::plan::{End, Way};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How one way of a link flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Flow {
    #[default]
    Free,
    /// Nothing is read.
    Stalled,
    /// About that much is read.
    Slow { bytes_per_second: u32 },
}

/// How connections end when they are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Both ends hear of it, by a FIN or a RST.
    Both { reset: bool },
    /// One end hears nothing: its connection stays, and nobody reads or writes it, until the link is healed.
    But(End),
}

/// What a link does at the moment.
#[derive(Debug, Clone, Default)]
struct Weather {
    up: Flow,
    down: Flow,
    /// New connections are closed at once.
    closed: bool,
    /// How many cuts there were, and what the last one was.
    cuts: (u64, Option<Cut>),
    /// How often it was healed.
    heals: u64,
}

/// A link. Ends with its connections when dropped.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    listening: AbortHandle,
}

impl Link {
    /// Opens a link to the router at `server`. `seed` is that of its unevenness when slow.
    pub(crate) fn open(server: SocketAddr, seed: u64) -> io::Result<Self> {
        let socket = narrow_socket()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let listener = socket.listen(128)?;
        let (address, weather) = (listener.local_addr()?, watch::Sender::new(Weather::default()));
        let listening = tokio::spawn(listen(listener, server, weather.subscribe(), seed)).abort_handle();
        Ok(Self { address, weather, listening })
    }

    /// Where the process connects.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on that way flows so.
    pub(crate) fn flow(&self, way: Way, flow: Flow) {
        self.weather.send_modify(|weather| match way {
            Way::Up => weather.up = flow,
            Way::Down => weather.down = flow,
        });
    }

    /// Cuts all connections, and refuses new ones until it is healed.
    pub(crate) fn cut(&self, reset: bool) {
        self.weather.send_modify(|weather| {
            weather.closed = true;
            weather.cuts = (weather.cuts.0 + 1, Some(Cut::Both { reset }));
        });
    }

    /// The other end of all connections is gone, and `silent` does not hear of it until the link is healed. New ones are taken.
    pub(crate) fn half_open(&self, silent: End) {
        self.weather.send_modify(|weather| weather.cuts = (weather.cuts.0 + 1, Some(Cut::But(silent))));
    }

    /// Flows freely and takes connections; those half open are closed.
    pub(crate) fn heal(&self) {
        self.weather.send_modify(|weather| {
            *weather = Weather { cuts: weather.cuts, heals: weather.heals + 1, ..Weather::default() };
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Small buffers: what is not read is soon felt at the other end.
fn narrow_socket() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    Ok(socket)
}

const BUFFER_BYTES: u32 = 64 << 10;

/// Takes connections until the link is dropped; those it has then end by themselves.
async fn listen(listener: TcpListener, server: SocketAddr, weather: watch::Receiver<Weather>, seed: u64) {
    let mut taken = 0;
    loop {
        // An error of a connection that went before it was taken.
        let Ok((member, _)) = listener.accept().await else { continue };
        if weather.borrow().closed {
            continue;
        }
        taken += 1;
        tokio::spawn(carry(member, server, weather.clone(), seed ^ (taken << 32)));
    }
}

/// One connection, from its first byte to its last.
async fn carry(mut member: TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>, seed: u64) {
    let before = weather.borrow().cuts.0;
    let connected = async { narrow_socket()?.connect(server).await };
    // A router that is not there: the member hears of it by the end of its connection.
    let Ok(mut server) = connected.await else { return };
    let _ = (member.set_nodelay(true), server.set_nodelay(true));
    let cut = {
        let (from_member, to_member) = member.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_member, to_server, Way::Up, weather.clone(), seed);
        let down = pump(from_server, to_member, Way::Down, weather.clone(), !seed);
        tokio::select! {
            ended = async { tokio::try_join!(up, down) } => return drop(ended),
            cut = weather.wait_for(|weather| weather.cuts.0 != before) => match cut {
                Ok(weather) => weather.cuts.1,
                // The link is dropped.
                Err(_) => None,
            },
        }
    };
    match cut {
        Some(Cut::Both { reset: true }) => {
            // With no time to linger, closing sends a RST.
            let _ = (member.set_zero_linger(), server.set_zero_linger());
        }
        Some(Cut::But(silent)) => {
            let heals = weather.borrow().heals;
            let (kept, gone) = if silent == End::Router { (server, member) } else { (member, server) };
            drop(gone);
            let _ = weather.wait_for(|weather| weather.heals != heals).await;
            drop(kept);
        }
        Some(Cut::Both { reset: false }) | None => {}
    }
}

/// Carries one way as it flows at the moment, to its end. Errors end the connection both ways.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: Way,
    mut weather: watch::Receiver<Weather>,
    seed: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES as usize];
    let mut drip = Drip::new(seed);
    let of = |weather: &Weather| if way == Way::Up { weather.up } else { weather.down };
    loop {
        let flow = of(&weather.borrow_and_update());
        let most = match flow {
            Flow::Free => buffer.len(),
            Flow::Stalled => {
                weather.changed().await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                continue;
            }
            Flow::Slow { bytes_per_second } => {
                let (bytes, pause) = drip.next(bytes_per_second);
                tokio::time::sleep(pause).await;
                bytes.min(buffer.len())
            }
        };
        let read = tokio::select! {
            read = from.read(&mut buffer[..most]) => read?,
            // A read that has not begun can wait for what comes next.
            changed = weather.changed() => {
                changed.map_err(|_| io::ErrorKind::BrokenPipe)?;
                continue;
            }
        };
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// How a slow way is uneven: some bytes, then a pause.
struct Drip {
    rng: ChaCha8Rng,
}

impl Drip {
    fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next bytes, and the pause before them. In the long run as many as asked for.
    fn next(&mut self, bytes_per_second: u32) -> (usize, Duration) {
        let pause = Duration::from_millis(self.rng.random_range(5..50));
        let bytes = u64::from(bytes_per_second) * u64::try_from(pause.as_millis()).unwrap_or(1) / 1000;
        (usize::try_from(bytes).unwrap_or(usize::MAX).max(1), pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// Ample for a byte on loopback.
    const SOON: Duration = Duration::from_secs(20);

    /// A link and both ends of one connection over it.
    struct Bench {
        link: Link,
        server: TcpListener,
        member: TcpStream,
        router: TcpStream,
    }

    impl Bench {
        async fn new() -> Self {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let link = Link::open(server.local_addr().unwrap(), 1).unwrap();
            let (member, router) = Self::connect(&link, &server).await;
            Self { link, server, member, router }
        }

        async fn connect(link: &Link, server: &TcpListener) -> (TcpStream, TcpStream) {
            let member = TcpStream::connect(link.address()).await.unwrap();
            let (router, _) = timeout(SOON, server.accept()).await.expect("the link connects").unwrap();
            (member, router)
        }
    }

    async fn say(stream: &mut TcpStream, byte: u8) {
        stream.write_all(&[byte]).await.unwrap();
    }

    async fn hear(stream: &mut TcpStream) -> io::Result<u8> {
        timeout(SOON, stream.read_u8()).await.expect("something is to be heard")
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_an_end_passes_too() {
        let Bench { link: _open, mut member, mut router, .. } = Bench::new().await;
        say(&mut member, 1).await;
        assert_eq!(hear(&mut router).await.unwrap(), 1);
        say(&mut router, 2).await;
        assert_eq!(hear(&mut member).await.unwrap(), 2);
        member.shutdown().await.unwrap();
        assert!(hear(&mut router).await.is_err(), "it was told of the end");
        say(&mut router, 3).await;
        assert_eq!(hear(&mut member).await.unwrap(), 3, "the other way goes on");
    }

    #[tokio::test]
    async fn a_way_that_is_stalled_holds_back_while_the_other_flows() {
        let Bench { link, mut member, mut router, .. } = Bench::new().await;
        link.flow(Way::Up, Flow::Stalled);
        say(&mut member, 1).await;
        for n in 0..100 {
            say(&mut router, n).await;
            assert_eq!(hear(&mut member).await.unwrap(), n);
        }
        assert_eq!(router.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "it was held back");
        link.heal();
        assert_eq!(hear(&mut router).await.unwrap(), 1, "and not lost");
    }

    #[tokio::test]
    async fn a_cut_is_heard_at_both_ends_and_lasts_until_it_is_healed() {
        for reset in [false, true] {
            let Bench { link, server, mut member, mut router } = Bench::new().await;
            link.cut(reset);
            let expected = if reset { io::ErrorKind::ConnectionReset } else { io::ErrorKind::UnexpectedEof };
            assert_eq!(hear(&mut member).await.unwrap_err().kind(), expected);
            assert_eq!(hear(&mut router).await.unwrap_err().kind(), expected);
            let mut refused = TcpStream::connect(link.address()).await.unwrap();
            assert!(hear(&mut refused).await.is_err());
            link.heal();
            let (mut member, mut router) = Bench::connect(&link, &server).await;
            say(&mut member, 7).await;
            assert_eq!(hear(&mut router).await.unwrap(), 7);
        }
    }

    #[tokio::test]
    async fn half_open_one_end_hears_nothing_and_a_new_connection_is_taken() {
        let Bench { link, server, mut member, mut router } = Bench::new().await;
        link.half_open(End::Router);
        assert!(hear(&mut member).await.is_err(), "the process is told");
        let (mut again, mut other) = Bench::connect(&link, &server).await;
        say(&mut again, 5).await;
        assert_eq!(hear(&mut other).await.unwrap(), 5);
        assert_eq!(router.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "the router is not");
        link.heal();
        assert!(hear(&mut router).await.is_err(), "until it is healed");
        say(&mut again, 6).await;
        assert_eq!(hear(&mut other).await.unwrap(), 6, "which harms no other connection");
    }

    #[tokio::test]
    async fn a_slow_way_still_carries_everything() {
        let Bench { link, mut member, mut router, .. } = Bench::new().await;
        link.flow(Way::Down, Flow::Slow { bytes_per_second: 100_000 });
        let sent: Vec<u8> = (0..2000_u32).map(|n| n.to_le_bytes()[0]).collect();
        router.write_all(&sent).await.unwrap();
        let mut heard = vec![0; sent.len()];
        timeout(SOON, member.read_exact(&mut heard)).await.expect("in the end").unwrap();
        assert_eq!(heard, sent);
    }

    #[test]
    fn a_drip_is_as_slow_as_asked_for_and_the_same_for_a_seed() {
        let drawn = |seed| {
            let mut drip = Drip::new(seed);
            (0..1000).map(|_| drip.next(20_000)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(3), drawn(3));
        assert_ne!(drawn(3), drawn(4));
        let (bytes, time) =
            drawn(3).into_iter().fold((0, Duration::ZERO), |(b, t), (bytes, pause)| (b + bytes, t + pause));
        let per_second = u128::try_from(bytes).unwrap() * 1000 / time.as_millis();
        assert!((19_000..=20_000).contains(&per_second), "{per_second} B/s");
    }
}

"""Named networks for the simulator, and where their figures come from.

    links = find_network("ethernet-10g").links()

What an application gets, not what the cable carries: TCP over Ethernet with a 1,500-byte MTU carries 1,448 bytes of payload in
1,538 on the wire (94.1 %). Interfaces send and take in one long message at a time, at once in both directions; short messages
pass between the packets of long ones. Switches never block: where a real network is oversubscribed, it is slower than this.

Sources:
    TCP over 10 Gb/s Ethernet: Hurwitz and Feng, "Initial End-to-End Performance Evaluation of 10-Gigabit Ethernet", Hot
    Interconnects 2003: 20 us between applications in a local network; Larsen et al., "Architectural Breakdown of End-to-End
    Latency in a TCP/IP Network", Int. J. of Parallel Programming 2009: as low as 10 us, and more where throughput is optimized
    for. Taken here, with a switch and an MPI on top: 25 us.
    100 Gb/s InfiniBand (EDR): an assumption, without a source that was looked at: 1.1 us under MPI, and 12.1 GB/s of the 12.5
    that the signal carries.
    Inside a host: MPI over shared memory, 10 GB/s each way in a pair exchange of 60 MB (measured with this package's `exchange`
    benchmark), 1 us.
    A wide-area network: 100 ms and 100 Mb/s are the setting, not a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvd_gossip.errors import ConfigError
from hvd_gossip.transport.simulated_links import Links, two_level_links

TCP_PAYLOAD = 1448 / 1538
"""Share of the wire's bytes that are payload: Ethernet preamble, header, checksum and gap, IP and TCP with time stamps."""
EXPRESS_BYTES = 4096
"""Messages of up to so many bytes do not queue behind long ones."""
INSIDE_A_HOST = (1e-6, 10e9)
"""(latency in s, bandwidth in B/s) between two ranks of a host."""


@dataclass(frozen=True)
class Network:
    """A kind of network.

    Attributes:
        name: what a table says.
        latency: seconds until the first byte arrives at another host.
        bandwidth: bytes of payload per second and direction of a host's interface.
        ranks_per_host: so many ranks share a host and its interface.
        inside: (latency in s, bandwidth in B/s) between ranks of a host.
        about: one phrase.
    """

    name: str
    latency: float
    bandwidth: float
    about: str
    ranks_per_host: int = 1
    inside: tuple[float, float] = INSIDE_A_HOST

    def links(self) -> Links:
        """The simulator's links, for any number of ranks."""
        shared = {"serialize_send": True, "serialize_receive": True, "express_bytes": EXPRESS_BYTES}
        if self.ranks_per_host == 1:
            return Links(self.latency, self.bandwidth, **shared)  # type: ignore[arg-type]
        return two_level_links(
            self.ranks_per_host,
            inner=self.inside,
            outer=(self.latency, self.bandwidth),
            ranks_per_interface=self.ranks_per_host,
            **shared,
        )


ETHERNET_10G = (25e-6, 10e9 / 8 * TCP_PAYLOAD)
INFINIBAND_100G = (1.1e-6, 12.1e9)
WIDE_AREA = (100e-3, 100e6 / 8 * TCP_PAYLOAD)

NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network("ethernet-10g", *ETHERNET_10G, "10 Gb/s Ethernet, a rank a host"),
        Network("infiniband-100g", *INFINIBAND_100G, "100 Gb/s InfiniBand, a rank a host"),
        Network("hosts-of-8-10g", *ETHERNET_10G, "8 ranks a host share 10 Gb/s Ethernet", 8),
        Network("hosts-of-4-100g", *INFINIBAND_100G, "4 ranks a host share 100 Gb/s InfiniBand", 4),
        Network("wide-area", *WIDE_AREA, "100 ms and 100 Mb/s between any two ranks"),
    )
}


def find_network(name: str) -> Network:
    """The network of a name.

    Raises:
        ConfigError: there is none; the message lists those that exist.
    """
    if name not in NETWORKS:
        raise ConfigError(f"unknown network {name!r}. Valid: {', '.join(NETWORKS)}")
    return NETWORKS[name]

// The tunnel device that all datapaths share: VXLAN with the Group-Policy extension, fixed FDB and
// neighbour entries, no learning. Called by datapath plugins in apply and purge.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "egw/sdk/datapath.hpp"
#include "layout.hpp"
#include "rtnl.hpp"

namespace egw::common {

struct TunnelSpec {
  std::string name;
  std::uint32_t vni = 0;
  std::uint16_t port = 0;
  sdk::Mac mac{};
  sdk::Address underlay;      // outer source
  std::string parent_device;  // its MTU bounds ours
  sdk::Prefix v4, v6;         // this node's tunnel addresses; may be none
  bool ipv6 = false;          // pods' packets of IPv6 are to go by it
  bool checksum_offload = true;
  friend bool operator==(const TunnelSpec&, const TunnelSpec&) = default;
};
[[nodiscard]] TunnelSpec tunnel_spec(const sdk::NodeConfig& node);

// With a smaller MTU a device has no IPv6 (RFC 8200, section 5), and the kernel takes no address,
// route or neighbour of that family for it.
inline constexpr std::uint32_t kLeastMtuV6 = 1280;
// Empty, or: the uplink's MTU is too small for IPv6 in the tunnel, and what to do.
[[nodiscard]] std::string too_narrow(const TunnelSpec& spec, std::uint32_t uplink_mtu);

struct TunnelPeer {
  std::string name;
  sdk::Address underlay, v4, v6;
  sdk::Mac mac{};
};

// A next hop that stands for "whoever the packet's destination MAC is rewritten to": a neighbour
// entry without an FDB entry, so that what is not rewritten goes nowhere.
struct TunnelNextHop {
  sdk::Address address;
  sdk::Mac mac{};
};

struct PeerFailure {
  std::string peer;
  int error;
  std::string message;
};

class Tunnel {
 public:
  Tunnel(NetlinkSocket& socket, const sdk::Host& host) : socket_(socket), host_(host) {}

  struct Result {
    int index = 0;
    std::uint32_t mtu = 0;
    bool created = false;  // the device is a new one: what hung on the old one is gone
    std::vector<PeerFailure> failures;
  };
  // Reads the kernel and writes what differs. A device of our name with other fixed attributes (id,
  // port, local address, learning, GBP) is replaced; one that is no VXLAN device is an error:
  // somebody else's. Where the uplink is too_narrow(), IPv6 is left out, which probe says.
  // Throws sdk::Failure.
  Result apply(const TunnelSpec& spec, const std::vector<TunnelPeer>& peers,
               const std::vector<TunnelNextHop>& hops, Repairs& repairs);

  // The end of a full change, when all that judges what comes in is there. Until then a device that
  // apply() has made takes nothing: it has another MAC than its peers send to.
  void open(const TunnelSpec& spec, const std::vector<TunnelPeer>& peers,
            const std::vector<TunnelNextHop>& hops);

  // Whether the device, as last applied, takes packets of the family.
  [[nodiscard]] bool takes(Table t) const { return t == Table::kIp || mtu_before_ >= kLeastMtuV6; }

  // After the device has been removed on purpose.
  void forget();

  // The device, FDB and neighbours as last applied are still what is wanted: nothing is read.
  void update_peers(const std::vector<TunnelPeer>& peers, const std::vector<TunnelNextHop>& hops,
                    Result& result);

 private:
  Link ensure_device(const TunnelSpec& spec, Result& result, Repairs& repairs);
  Link create(const TunnelSpec& spec, std::uint32_t mtu);
  [[nodiscard]] std::string in_the_way(int err, const TunnelSpec& spec);
  static void write_settings(const std::string& device);
  void settle(const TunnelSpec& spec, const Link& link, std::uint32_t mtu, Repairs& repairs);
  void sync_peers(const std::vector<TunnelPeer>& peers, const std::vector<TunnelNextHop>& hops,
                  bool read, Result& result, Repairs& repairs);

  NetlinkSocket& socket_;
  sdk::Host host_;
  std::optional<TunnelSpec> before_;
  std::set<Neighbour> fdb_before_, neighbours_before_;
  std::set<LinkAddress> addresses_before_;
  int index_before_ = 0;
  std::uint32_t mtu_before_ = 0;
  sdk::Mac mac_{};  // the device's
};

// Removes every tunnel device of ours (recognised by its alias), whoever left it, but `except`.
int remove_tunnels(NetlinkSocket& socket, std::string_view except = {});
[[nodiscard]] std::optional<Link> find_tunnel(NetlinkSocket& socket);

// Writes value to /proc/sys/<key>, where that is read-only to /host/proc/sys/<key>, if it differs.
// false: it could not be written (errno).
bool write_sysctl(const std::string& key, std::string_view value);
[[nodiscard]] std::string read_sysctl(const std::string& key);  // "" when absent

// Checksum offload (ETHTOOL_STXCSUM) of a device: 0 or errno; changes only what differs.
int set_checksum_offload(const std::string& device, bool on);

}  // namespace egw::common

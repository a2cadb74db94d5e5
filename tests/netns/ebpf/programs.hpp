// A packet in, the verdict, the mark, the priority and the packet out, by BPF_PROG_TEST_RUN. Maps
// of their own; nothing is attached, nothing pinned. For the tests of this folder.
#pragma once

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <numeric>
#include <string>

#include "ebpf/kernel.hpp"

namespace egw::ebpf {

inline constexpr int kNext = -1, kShot = 2, kRedirect = 7;
inline constexpr std::uint32_t kSlots = 0xff000000, kEarly = 0x01000000, kLate = 0x02000000,
                               kSteer = 0x09000000, kBack = 0x0a000000, kOuter = 0x05000000;
inline constexpr std::uint32_t kClass = common::kClassBit | 5;
inline constexpr std::uint32_t kSeven = 7 << EGW_EARLY_SHIFT, kSevenOfClass = kSeven | 5;
inline constexpr std::uint32_t kMtu = 1450;
inline const sdk::Mac kTunnelMac{0x02, 0xee, 0, 0, 0, 1};
inline const sdk::Mac kOwnerMac{0x02, 0xee, 0, 0, 0, 9}, kPeerMac{0x02, 0xee, 0, 0, 0, 7};

inline std::string bytes(std::initializer_list<unsigned> list) {
  std::string out;
  for (const unsigned b : list) out += static_cast<char>(b);
  return out;
}

inline std::string be16(unsigned v) { return bytes({v >> 8 & 255U, v & 255U}); }

inline std::string address(const char* text) {
  return common::register_address(*sdk::Address::parse(text));
}

inline std::uint32_t add_words(const std::string& data, std::uint32_t sum) {
  for (std::size_t i = 0; i < data.size(); i += 2) {
    const auto high = static_cast<unsigned char>(data[i]);
    const auto low = i + 1 < data.size() ? static_cast<unsigned char>(data[i + 1]) : 0U;
    sum += static_cast<std::uint32_t>(high << 8 | low);
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

inline std::string ether(unsigned type) { return std::string(12, '\x02') + be16(type); }

struct Ip4 {
  const char* source = "10.244.1.10";
  const char* destination = "198.51.100.7";
  unsigned protocol = 17;
  std::string options;  // a multiple of four bytes
  unsigned fragment = 0;
};

inline Ip4 of_tcp(unsigned fragment) {
  Ip4 out;
  out.protocol = 6;
  out.fragment = fragment;
  return out;
}

inline std::string ipv4(const Ip4& p, const std::string& payload) {
  const unsigned words = 5 + static_cast<unsigned>(p.options.size() / 4);
  std::string h = bytes({0x40 | words, 0}) +
                  be16(static_cast<unsigned>(words * 4 + payload.size())) + be16(1) +
                  be16(p.fragment) + bytes({64, p.protocol}) + be16(0) + address(p.source) +
                  address(p.destination) + p.options;
  const std::string sum = be16(~add_words(h, 0) & 0xffffU);
  return h.replace(10, 2, sum) + payload;
}

inline std::string ipv6(unsigned next, const std::string& payload,
                        const char* source = "fd00:244:1::a",
                        const char* destination = "2001:db8::7") {
  return bytes({0x60, 0, 0, 0}) + be16(static_cast<unsigned>(payload.size())) + bytes({next, 64}) +
         address(source) + address(destination) + payload;
}

inline std::string udp() { return be16(4000) + be16(53) + be16(12) + be16(0) + "ping"; }

// With a right checksum over the pseudo header of 198.51.100.7.
inline std::string tcp(const std::string& options, unsigned flags, const std::string& addresses) {
  const unsigned words = 5 + static_cast<unsigned>(options.size() / 4);
  std::string h = be16(4000) + be16(80) + std::string(8, '\x01') + bytes({words << 4, flags}) +
                  be16(1024) + be16(0) + be16(0) + options;
  const std::string pseudo = addresses + be16(6) + be16(static_cast<unsigned>(h.size()));
  return h.replace(16, 2, be16(~add_words(h, add_words(pseudo, 0)) & 0xffffU));
}

struct Outcome {
  int verdict = 0;
  std::uint32_t mark = 0, priority = 0;
  std::string packet;
};

class Programs : public ::testing::Test {
 protected:
  explicit Programs(bool fast = false) : loaded_("", fast) {}
  void SetUp() override {
    const MapSet& maps = loaded_.maps();
    egw_settings s{};
    s.slot_mask = kSlots;
    s.slot_early = kEarly;
    s.slot_late = kLate;
    s.slot_steer = kSteer;
    s.slot_back = kBack;
    s.slot_outer = kOuter;
    s.mtu = kMtu;
    s.tunnel = 1;  // lo, in place of a tunnel device
    std::copy(kTunnelMac.begin(), kTunnelMac.end(), s.mac);
    std::memcpy(&s.tunnel4, address("172.31.0.1").data(), 4);
    std::memcpy(&s.tunnel6, address("fd11::1").data(), 16);
    const std::uint32_t zero = 0;
    ASSERT_EQ(bpf_map_update_elem(maps.settings, &zero, &s, BPF_ANY), 0);
    const auto u32 = common::register_u32;
    const auto of = [](const char* text) { return *sdk::Address::parse(text); };
    ASSERT_TRUE(loaded_
                    .put(common::Table::kIp, {{of("10.244.1.10"), 7},
                                              {of("10.244.1.11"), kClass},
                                              {of("10.244.1.12"), common::kDropNumber},
                                              {of("10.244.1.13"), 8}})
                    .empty());
    ASSERT_TRUE(
        loaded_.put(common::Table::kIp6, {{of("fd00:244:1::a"), 7}, {of("fd00:244:1::b"), kClass}})
            .empty());
    put_all(maps.cluster[0], {{key(0, "10.96.0.0/12"), u32(1)}});
    put_all(maps.cluster[1], {{key(0, "fd00:96::/64"), u32(1)}});
    put_all(maps.classes[0], {{key(kClass, "198.51.100.0/24"), u32(7)},
                              {key(kClass, "198.51.100.128/25"), u32(common::kDropNumber)},
                              {key(kClass + 1, "203.0.113.0/24"), u32(7)}});
    put_all(maps.classes[1], {{key(kClass, "2001:db8::/32"), u32(7)}});
    loaded_.owners().set(7, owner(common::Mode::kSteer, kOwnerMac));
    loaded_.owners().set(8, owner(common::Mode::kOwn, {}));
    loaded_.backs().set(3, back_value(kPeerMac));
  }

  static void put_all(int map, const common::Elements& elements) {
    ASSERT_TRUE(put(map, elements).empty());
  }
  static std::string key(std::uint32_t number, const char* prefix) {
    return prefix_key(number, *sdk::Prefix::parse(prefix));
  }
  static std::uint64_t owner(common::Mode mode, const sdk::Mac& mac) {
    common::EgressPlan plan;
    plan.mode = {mode, mode};
    plan.owner = mac;
    return owner_value(plan);
  }

  Outcome run(Loaded::Program program, const std::string& packet, std::uint32_t mark = 0) {
    __sk_buff context{};
    context.mark = mark;
    std::string out(packet.size() + 64, '\0');
    bpf_test_run_opts opts{};
    opts.sz = sizeof(opts);
    opts.data_in = packet.data();
    opts.data_size_in = static_cast<std::uint32_t>(packet.size());
    opts.data_out = out.data();
    opts.data_size_out = static_cast<std::uint32_t>(out.size());
    opts.ctx_in = opts.ctx_out = &context;
    opts.ctx_size_in = opts.ctx_size_out = sizeof(context);
    // As a device hands them up that sums packets: afterwards the kernel holds the sum against the
    // packet (BPF_F_TEST_SKB_CHECKSUM_COMPLETE, EBADMSG). Kernels before 6.17 do not know the flag.
    opts.flags = 1U << 2;
    int r = bpf_prog_test_run_opts(loaded_.program(program), &opts);
    if (r == -EINVAL) {
      opts.flags = 0;
      r = bpf_prog_test_run_opts(loaded_.program(program), &opts);
    }
    EXPECT_EQ(r, 0) << std::strerror(-r);
    out.resize(opts.data_size_out);
    return {static_cast<int>(opts.retval), context.mark, context.priority, out};
  }
  Outcome pod(const std::string& packet, std::uint32_t mark = 0) {
    const Outcome out = run(Loaded::Program::kPod, packet, mark);
    EXPECT_EQ(out.verdict, kNext) << "it marks, and drops nothing";
    EXPECT_EQ(out.packet, packet) << "the packet stays as it is";
    return out;
  }
  std::uint64_t dropped(egw_reason reason) const { return sum_of(loaded_.maps().drops, reason); }

  Loaded loaded_;
};

inline std::string from4(const char* source, const char* destination = "198.51.100.7") {
  return ether(0x0800) + ipv4({source, destination, 17, "", 0}, udp());
}

inline const std::string kHop = bytes({17, 0, 1, 4, 0, 0, 0, 0});  // hop-by-hop, then UDP

}  // namespace egw::ebpf

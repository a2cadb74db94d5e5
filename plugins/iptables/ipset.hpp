// ipset by netlink: hash:ip and hash:net sets whose elements may carry a packet mark with a mask
// (skbinfo). One system call for thousands of elements; a set is exchanged as a whole by swap.
// Called by sets.cpp and probe.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/netlink.hpp"
#include "egw/sdk/views.hpp"
#include "layout.hpp"

namespace egw::iptables {

// mark = (mark & ~mask) ^ value, when a rule asks for it.
struct MarkChange {
  std::uint32_t value = 0, mask = 0;
  friend bool operator==(const MarkChange&, const MarkChange&) = default;
};

enum class SetType : std::uint8_t { kAddresses, kPrefixes };  // hash:ip, hash:net

// Sorted. Addresses have their full length.
using SetElements = std::map<sdk::Prefix, MarkChange>;

struct SetKind {
  SetType type = SetType::kAddresses;
  Table family = Table::kIp;
  bool marks = false;  // elements carry a MarkChange
  friend bool operator==(const SetKind&, const SetKind&) = default;
};

struct SetHeader {
  SetKind kind;
  std::uint32_t elements = 0;
  std::uint32_t references = 0;  // by rules
};

// errno, or a word for ipset's own numbers.
[[nodiscard]] std::string ipset_error(int error);

class Ipset {
 public:
  explicit Ipset(common::NetlinkSocket socket) : socket_(std::move(socket)) {}
  [[nodiscard]] static sdk::Outcome<Ipset> open();

  // The newest revision of the type that the kernel has; nullopt: none, or without marks.
  [[nodiscard]] std::optional<std::uint8_t> revision(SetType type, Table family);

  // 0 or an error number, all of them. size: how many elements it is made for at first.
  int create(const std::string& name, const SetKind& kind, std::size_t size);
  int destroy(const std::string& name);
  int swap(const std::string& a, const std::string& b);
  // Elements that are there already get the mark that is given. Sets of marks need it, others do
  // not look at it. The first error, with the element where it is known.
  struct Refused {
    int error = 0;
    sdk::Prefix element;
  };
  std::vector<Refused> add(const std::string& name, const SetKind& kind,
                           const SetElements& elements);
  std::vector<Refused> remove(const std::string& name, const SetKind& kind,
                              const SetElements& elements);
  // Of ours (is_our_set) alone. Throws sdk::Failure.
  [[nodiscard]] std::map<std::string, SetHeader> headers();
  [[nodiscard]] SetElements elements(const std::string& name);

 private:
  common::Message message(int command, int flags, const std::string& name, std::size_t reserve);
  std::vector<Refused> change(int command, const std::string& name, const SetKind& kind,
                              const SetElements& elements);

  common::NetlinkSocket socket_;
  std::map<std::pair<SetType, Table>, std::optional<std::uint8_t>> revisions_;
};

}  // namespace egw::iptables

// Our nftables tables beside iptables' (companion_rules.hpp) in the kernel: made to agree by
// reading (full) or from what was written last (a step), in an order in which nothing refers to
// what is not there. Called by datapath.cpp.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/nftables/nft.hpp"
#include "common/rtnl.hpp"
#include "companion_rules.hpp"

namespace egw::iptables {

class Companion {
 public:
  // Whether the kernel takes such tables; not: an empty status says why.
  static sdk::Outcome<std::unique_ptr<Companion>> open(bool egress);
  // Takes away what one has left, whether or not the kernel takes a new one; tells first for which
  // egress ids it translated.
  static sdk::Status remove(const std::function<void(std::uint32_t id)>& translates = {});

  sdk::Status apply(CompanionTables wanted, bool read, common::Repairs& repairs);
  // After an apply that has succeeded: these elements only, without a look at the others.
  sdk::Status step(const std::vector<CompanionChange>& changes);
  // Empty, or which table is missing.
  [[nodiscard]] std::string missing();
  [[nodiscard]] common::Nft& nft() { return *nft_; }

 private:
  struct Difference;
  explicit Companion(std::unique_ptr<common::Nft> nft) : nft_(std::move(nft)) {}
  [[nodiscard]] common::KernelTable held(Table t, bool read);
  void compare(Table t, const CompanionTable& wanted, bool read, Difference& out,
               common::Repairs& repairs);
  void compare_sets(Table t, const CompanionTable& wanted, const common::KernelTable& kernel,
                    bool read, Difference& out, common::Repairs& repairs);
  void compare_chains(Table t, const CompanionTable& wanted, const common::KernelTable& kernel,
                      bool read, Difference& out, common::Repairs& repairs);
  sdk::Status execute(const std::array<Difference, 3>& all);

  std::unique_ptr<common::Nft> nft_;
  bool known_ = false;  // written_ is what the kernel was given last
  CompanionTables written_;
  // What the kernel makes of a chain as written: name -> fingerprint, content.
  using Learned = std::map<std::string, std::pair<std::uint64_t, std::uint64_t>>;
  std::array<Learned, 3> learned_;
};

}  // namespace egw::iptables

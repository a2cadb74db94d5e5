// nftables in process: structure (tables, chains, rules, sets) as text through libnftables; rules
// without words, elements and dumps by netlink, which costs neither the text nor libnftables' copy
// of every element. Called by tables.cpp and datapath.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/netlink.hpp"
#include "desired.hpp"
#include "egw/sdk/status.hpp"

struct nft_ctx;

namespace egw::common {

// What the kernel holds of one of our tables.
struct KernelChain {
  std::optional<Hook> hook;  // without the hook's name
  bool policy_accept = true;
  std::uint64_t content = 0;  // of the rules' expressions
  std::uint64_t claimed = 0;  // the fingerprint in the comments
  std::uint32_t rules = 0;
  bool consistent = true;  // comments count 0..n-1 with one fingerprint
};
struct KernelSet {
  std::uint32_t flags = 0, key_length = 0, data_length = 0, data_type = 0;
};
struct KernelTable {
  bool exists = false;
  std::unordered_map<std::string, KernelChain> chains;
  std::map<std::string, KernelSet> sets;
  std::set<std::string> counters;
};

// All that is compared when a node is programmed, as it was at one moment.
struct KernelContent {
  std::uint32_t generation = 0;
  std::array<KernelTable, 3> tables;
  std::array<std::map<std::string, Elements>, 3> elements;  // of sets without intervals
};

struct ElementChange {
  std::string set;
  bool verdict = false;
  Elements remove;  // keys; data as it is in the kernel
  Elements add;
};

class Nft {
 public:
  // table: the name that our tables have, in every family.
  static sdk::Outcome<std::unique_ptr<Nft>> open(std::string_view table = kTable);
  // Reads all of our tables, on a socket of its own: from any thread. Throws sdk::Failure.
  static std::unique_ptr<KernelContent> read_all();
  ~Nft();

  // One transaction. The message carries what nft says.
  sdk::Status run(const std::string& text);
  // Whether the kernel would take it; changes nothing.
  sdk::Status try_out(const std::string& text);
  // Gives libnftables' memory back after a big load.
  void release_memory();

  [[nodiscard]] bool table_exists(Table t);
  [[nodiscard]] KernelTable dump(Table t);
  [[nodiscard]] Elements elements(Table t, const std::string& set, bool verdict);
  // Of an interval set.
  [[nodiscard]] AddressRanges ranges(Table t, const std::string& set);
  [[nodiscard]] std::map<std::string, KernelSet> sets(Table t);
  [[nodiscard]] std::map<std::string, std::uint64_t> counters(Table t);  // packets
  [[nodiscard]] std::uint32_t generation();
  // dump() and elements() answer from there until anybody changes nftables, which is seen when
  // generation() is asked. nullptr: they ask the kernel.
  void answer_from(std::unique_ptr<KernelContent> content);

  struct ElementFailure {
    Table table;
    std::string set, key;
    int error;
  };
  // All changes of all tables in one transaction. If the kernel refuses it, finds the elements at
  // fault, leaves them out and reports them; the rest then still is one transaction.
  sdk::Status write(const std::array<const std::vector<ElementChange>*, 3>& changes,
                    std::vector<ElementFailure>& failures);

  // Chains with a raw rule: emptied and filled, in one transaction.
  sdk::Status write_raw(const std::array<std::vector<Chain>, 3>& chains);

  // Netlink ports of our sockets: who our own changes come from.
  [[nodiscard]] std::vector<std::uint32_t> ports() const;
  [[nodiscard]] NetlinkSocket& socket() { return socket_; }

 private:
  Nft(NetlinkSocket socket, std::string_view table) : socket_(std::move(socket)), table_(table) {}
  sdk::Status make_context();
  void dump_chains(Table t, KernelTable& out);
  void dump_rules(Table t, KernelTable& out);

  NetlinkSocket socket_;
  std::string table_;
  std::unique_ptr<KernelContent> content_;
  nft_ctx* context_ = nullptr;
  std::uint32_t context_port_ = 0;
  std::unordered_map<std::string, std::string> last_comment_;  // while dumping rules
};

}  // namespace egw::common

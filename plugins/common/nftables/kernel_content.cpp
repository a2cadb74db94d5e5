// Nft: everything of our tables at once, read before anybody asks for it.
#include <linux/netfilter/nf_tables.h>

#include <utility>

#include "nft.hpp"

namespace egw::common {

std::unique_ptr<KernelContent> Nft::read_all() {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) throw sdk::Failure(socket.status());
  Nft nft(std::move(*socket), kTable);
  auto out = std::make_unique<KernelContent>();
  // Before all else: what changes meanwhile makes another of it.
  out->generation = nft.generation();
  for (const Table t : kTables) {
    const auto i = static_cast<std::size_t>(t);
    out->tables[i] = nft.dump(t);
    for (const auto& [name, set] : out->tables[i].sets) {
      if ((set.flags & NFT_SET_INTERVAL) != 0) continue;
      out->elements[i].emplace(name, nft.elements(t, name, set.data_type == NFT_DATA_VERDICT));
    }
  }
  return out;
}

void Nft::answer_from(std::unique_ptr<KernelContent> content) {
  content_ = std::move(content);
  if (content_) (void)generation();
}

}  // namespace egw::common

// Plan to store writes (plan_writer.hpp).
#include "egw/runtime/plan_writer.hpp"

#include <utility>

#include "egw/model/codec.hpp"
#include "egw/runtime/write_result.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using host::WriteRequest;
using model::Kind;

namespace {

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

Kind policy_kind(const model::EgressPolicy& policy) {
  return policy.meta.ns.empty() ? Kind::kEgressClusterPolicy : Kind::kEgressPolicy;
}

template <class R>
void status_request(WriteRequest& request, const R& resource) {
  request.op = WriteRequest::Op::kUpdateStatus;
  request.document = model::encode(resource);
  request.expected_revision = resource.meta.revision;
}

void policy_request(WriteRequest& request, const model::EgressPolicy& policy) {
  if (policy.meta.ns.empty()) {
    model::EgressClusterPolicy cluster_wide;
    static_cast<model::EgressPolicy&>(cluster_wide) = policy;
    status_request(request, cluster_wide);
  } else {
    status_request(request, policy);
  }
}

template <class R>
void create_request(WriteRequest& request, const R& resource) {
  request.op = WriteRequest::Op::kCreate;
  request.document = model::encode(resource);
}

// Everything but SetMeta, which needs the stored document.
void fill_request(WriteRequest& request, const core::Write& write) {
  const auto fill = Overloaded{
      [&](const core::CreateTunnel& create) {
        model::EgressTunnel tunnel;
        tunnel.meta.name = create.node;
        create_request(request, tunnel);
      },
      [&](const core::CreateClusterInfo& create) {
        model::EgressClusterInfo cluster_info;
        cluster_info.meta.name = create.name;
        cluster_info.spec = create.spec;
        create_request(request, cluster_info);
      },
      [&](const core::DeleteTunnel&) { request.op = WriteRequest::Op::kDelete; },
      [&](const core::DeleteClusterInfo&) { request.op = WriteRequest::Op::kDelete; },
      [&](const core::WriteTunnel& step) { status_request(request, step.tunnel); },
      [&](const core::WriteClusterInfo& step) { status_request(request, step.info); },
      [&](const core::WriteGateway& step) { status_request(request, step.gateway); },
      [&](const core::WritePolicy& step) { policy_request(request, step.policy); },
      [&](const core::SetMeta& step) {
        request.op = WriteRequest::Op::kUpdate;
        request.expected_revision = step.expected_revision;
      },
  };
  std::visit(fill, write);
}

// Whether later writes of the batch may be made although this one was refused.
bool others_depend_on(const core::Write& write) {
  return std::holds_alternative<core::WriteClusterInfo>(write) ||
         std::holds_alternative<core::CreateClusterInfo>(write);
}

bool is_creation(const core::Write& write) {
  return std::holds_alternative<core::CreateTunnel>(write) ||
         std::holds_alternative<core::CreateClusterInfo>(write);
}

}  // namespace

WriteTarget target_of(const core::Write& write) {
  const auto find = Overloaded{
      [](const core::CreateTunnel& w) {
        return WriteTarget{Kind::kEgressTunnel, {"", w.node}};
      },
      [](const core::DeleteTunnel& w) {
        return WriteTarget{Kind::kEgressTunnel, {"", w.node}};
      },
      [](const core::CreateClusterInfo& w) {
        return WriteTarget{Kind::kEgressClusterInfo, {"", w.name}};
      },
      [](const core::DeleteClusterInfo& w) {
        return WriteTarget{Kind::kEgressClusterInfo, {"", w.name}};
      },
      [](const core::WriteTunnel& w) {
        return WriteTarget{Kind::kEgressTunnel, w.tunnel.meta.key()};
      },
      [](const core::WriteClusterInfo& w) {
        return WriteTarget{Kind::kEgressClusterInfo, w.info.meta.key()};
      },
      [](const core::WriteGateway& w) {
        return WriteTarget{Kind::kEgressGateway, w.gateway.meta.key()};
      },
      [](const core::WritePolicy& w) {
        return WriteTarget{policy_kind(w.policy), w.policy.meta.key()};
      },
      [](const core::SetMeta& w) {
        return WriteTarget{w.kind, w.key};
      },
  };
  return std::visit(find, write);
}

asio::awaitable<Result<WriteRequest>> PlanWriter::request_for(const core::Write& write) {
  WriteRequest request;
  const WriteTarget target = target_of(write);
  request.kind = target.kind;
  request.key = target.key;
  fill_request(request, write);
  if (const auto* meta = std::get_if<core::SetMeta>(&write)) {
    // The whole document is written back, with fields that this version does not know.
    auto stored = co_await store_.get(target.kind, target.key);
    if (!stored) co_return tl::unexpected(stored.error());
    if (stored->revision != meta->expected_revision) {
      sync_.adopt(target.kind, *stored);
      co_return fail(Errc::kConflict, target.key.to_string(), "has changed since it was read");
    }
    auto& metadata = stored->document["metadata"];
    metadata["finalizers"] = meta->finalizers;
    metadata["annotations"] = meta->annotations;
    request.document = std::move(stored->document);
  }
  co_return request;
}

asio::awaitable<Result<void>> PlanWriter::make(const core::Write& write, std::uint64_t term) {
  auto request = co_await request_for(write);
  if (!request) co_return tl::unexpected(request.error());
  request->term = term;
  const Kind kind = request->kind;
  const bool deletion = request->op == WriteRequest::Op::kDelete;
  auto outcome = co_await store_.write(std::move(*request));
  metrics_.store_write(kind, write_result(outcome));
  if (!outcome) {
    const Errc code = outcome.error().code;
    const bool done_before =
        (code == Errc::kNotFound && deletion) || (code == Errc::kExists && is_creation(write));
    if (done_before) co_return Result<void>{};
    co_return tl::unexpected(outcome.error());
  }
  if (!deletion) sync_.adopt(kind, outcome->object);
  co_return Result<void>{};
}

asio::awaitable<BatchEnd> PlanWriter::run(const core::Plan& plan, std::uint64_t term,
                                          std::function<bool()> may_go_on, Written written) {
  const std::uint64_t events_before = sync_.external_changes();
  int policies = 0;
  for (const auto& write : plan.writes) {
    if (!may_go_on()) co_return BatchEnd::kInterrupted;
    if (std::holds_alternative<core::WritePolicy>(write) && ++policies > kPoliciesPerBatch &&
        sync_.external_changes() != events_before) {
      co_return BatchEnd::kInterrupted;
    }
    const std::int64_t began = clock_.steady_ms();
    const auto made = co_await make(write, term);
    if (made) {
      written(write, clock_.steady_ms() - began);
      continue;
    }
    const WriteTarget target = target_of(write);
    const Error& error = made.error();
    if (error.code == Errc::kConflict) co_return BatchEnd::kConflict;
    // Deleted since the plan was made, with an event that is still on its way: as it should be.
    if (error.code == Errc::kNotFound && !is_creation(write) && !others_depend_on(write)) {
      log_.debug("what was to be written has gone",
                 {{"kind", model::info(target.kind).kind}, {"object", target.key.to_string()}});
      continue;
    }
    if (error.code == Errc::kStaleTerm) {
      log_.warn("a write was refused because of its term", {{"error", error.to_string()}});
      co_return BatchEnd::kStaleTerm;
    }
    const std::string text = error.to_string();
    if (text != last_refusal_) {
      log_.error("a write failed", {{"kind", model::info(target.kind).kind},
                                    {"object", target.key.to_string()},
                                    {"error", text}});
      last_refusal_ = text;
    }
    const bool refused = error.code == Errc::kDenied || error.code == Errc::kInvalid;
    if (!refused || others_depend_on(write)) co_return BatchEnd::kUnavailable;
  }
  co_return BatchEnd::kDone;
}

}  // namespace egw::runtime

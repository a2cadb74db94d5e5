// See api.hpp.
#include "api.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>

namespace egw::kube {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {
// Streams that bring nothing for so long are asked after: whoever only watches would not notice a
// server that has stopped. Whoever writes heartbeats needs no such question.
constexpr auto kQuiet = 10s;
constexpr auto kLook = 2500ms;
constexpr auto kAskDeadline = 3000ms;

bool worth_repeating(const HttpAnswer& answer) {
  if (answer.stopped) return false;
  if (answer.code == 429) return true;
  if (answer.code == 503) return answer.retry_after.count() > 0;
  return answer.code == 0 && !answer.sent;
}
}  // namespace

Api::Api(Access access, const sdk::Host& host)
    : access_(std::move(access)),
      host_(host),
      credentials_(access_),
      streams_(access_.server, HttpClient::Speaks::kHttp2),
      requests_(access_.server, HttpClient::Speaks::kHttp1) {
  requests_.tell_of_death([this](steady_clock::time_point since) { streams_.doubt(since); });
  keeper_ = std::thread([this] { keep_watch(); });
}

Api::~Api() {
  stop_.request();
  wake();
  keeper_.join();
}

HttpAnswer Api::once(const HttpRequest& request, const Stop* stop) {
  return once(request.on_data ? streams_ : requests_, request, stop);
}

HttpAnswer Api::once(HttpClient& client, const HttpRequest& request, const Stop* stop) {
  HttpAnswer answer;
  for (int attempt = 0; attempt < 2; ++attempt) {
    const sdk::Outcome<Credentials> credentials = credentials_.get();
    if (!credentials.ok()) {
      failed_ = true;
      answer = {};
      answer.error = credentials.status().text();
      return answer;
    }
    answer = client.call(request, credentials.value(), stop);
    if (answer.code != 401) break;
    credentials_.refused();
  }
  if (!answer.stopped) failed_ = answer.code == 0 || answer.code == 401;
  return answer;
}

HttpAnswer Api::call(HttpRequest request, Stop* stop) {
  const auto until = steady_clock::now() + request.deadline;
  BackOff back_off(50ms, 2000ms);
  for (;;) {
    HttpAnswer answer = once(request, stop);
    if (!worth_repeating(answer)) return answer;
    const milliseconds pause = back_off.next(answer.retry_after);
    const auto left = std::chrono::floor<milliseconds>(until - steady_clock::now());
    if (pause + 10ms >= left) return answer;
    if (stop != nullptr ? stop->wait(pause) : stop_.wait(pause)) return answer;
    request.deadline = left - pause;
  }
}

sdk::Outcome<nlohmann::json> Api::object(HttpRequest request, const Asked& asked, Stop* stop) {
  const HttpAnswer answer = call(std::move(request), stop);
  if (sdk::Status s = status_of(answer, asked); !s.ok()) return s;
  auto out = parse_object(answer.body);
  if (out.ok()) return out;
  sdk::Status status = out.status();
  status.what = asked.object.empty() ? asked.resource : asked.object;
  return status;
}

sdk::Status Api::alive(milliseconds deadline) {
  HttpRequest request;
  request.path = "/livez";
  request.deadline = deadline;
  const HttpAnswer answer = once(request);
  // Whatever it says about itself or about us, it is there.
  if (answer.code != 0 && answer.code != 401 && answer.code < 500) return sdk::ok();
  return status_of(answer, {"health check", access_.server.url, ""});
}

void Api::keep_watch() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (!stop_.wait(kLook)) {
    if (streams_.streams() == 0 || steady_clock::now() - streams_.last_received() < kQuiet)
      continue;
    HttpRequest request;
    request.path = "/livez";
    request.deadline = kAskDeadline;
    (void)once(streams_, request, &stop_);  // without an answer, the client gives the connection up
  }
}

}  // namespace egw::kube

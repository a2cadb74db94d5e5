// See http.hpp.
#include "http.hpp"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace egw::kube {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {

constexpr auto kConnectTimeout = 3000ms;
constexpr auto kLongestPoll = 60000ms;
constexpr std::size_t kMaxHeader = 256UL * 1024;
constexpr std::size_t kMaxRefusal = 1024UL * 1024;  // body of a stream's answer that is no stream
constexpr auto kMaxRetryAfter = 60s;
// So that what comes for one stream while libcurl serves another need not wait for a second
// reading.
constexpr long kStreamBuffer = 128L * 1024;
// libcurl 7.88 may keep what it has read of one HTTP/2 stream while it served another (its "drain")
// until the socket has news, which may be never: whenever something has come, it is run again a few
// times. Where nothing comes this costs nothing.
constexpr int kLooks = 3;
constexpr auto kGlance = 2ms;
// A request that may take so long and gets no answer tells that the connection is dead; one that
// has only the rest of somebody's deadline does not.
constexpr auto kTelling = 750ms;

void init_curl() {
  static const CURLcode code = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) throw std::runtime_error("libcurl cannot be initialized");
}

curl_blob blob_of(const std::string& bytes) {
  // The bytes outlive the transfer: CURL_BLOB_NOCOPY does not write to them.
  return {const_cast<char*>(bytes.data()), bytes.size(), CURL_BLOB_NOCOPY};
}

std::string_view host_of(const std::string& url) {
  std::string_view rest = url;
  if (const auto at = rest.find("://"); at != std::string_view::npos) rest.remove_prefix(at + 3);
  return rest.substr(0, rest.find('/'));
}

// The URL with another host and the same port; answers how curl must connect instead.
std::string use_tls_name(std::string& url, const std::string& name) {
  const std::string_view authority = host_of(url);
  const std::size_t colon = authority.rfind(':');
  const bool has_port = colon != std::string_view::npos && authority.back() != ']';
  const std::string port(has_port ? authority.substr(colon + 1) : "443");
  const std::string host(authority.substr(0, has_port ? colon : authority.size()));
  url.replace(url.find("://") + 3, authority.size(), name + ":" + port);
  return name + ":" + port + ":" + host + ":" + port;
}

}  // namespace

struct HttpClient::Transfer {
  Transfer(HttpClient& the_client, const HttpRequest& the_request,
           const Credentials& the_credentials, const Stop* the_stop)
      : client(the_client),
        request(the_request),
        credentials(the_credentials),
        stop(the_stop),
        easy(::curl_easy_init()) {}
  ~Transfer() {
    ::curl_easy_cleanup(easy);
    ::curl_slist_free_all(headers);
    ::curl_slist_free_all(connect_to);
  }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  void set_up();
  void header(const char* text) { headers = ::curl_slist_append(headers, text); }
  void heard() {
    last = steady_clock::now();
    client.received_ = last.time_since_epoch().count();
  }
  [[nodiscard]] bool is_stream() const { return request.on_data && code() / 100 == 2; }
  [[nodiscard]] int code() const {
    long value = 0;
    ::curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &value);
    return static_cast<int>(value);
  }
  [[nodiscard]] std::string reason(int result) const;

  HttpClient& client;
  const HttpRequest& request;
  const Credentials& credentials;
  const Stop* stop;
  CURL* easy;
  curl_slist* headers = nullptr;
  curl_slist* connect_to = nullptr;
  char detail[CURL_ERROR_SIZE] = {};
  Time begun{}, last{};
  std::size_t header_bytes = 0;
  std::string broken;  // why our own callbacks refused to go on
  HttpAnswer answer;
  bool done = false;  // guarded by the client's mutex
};

void HttpClient::Transfer::set_up() {
  const Server& server = client.server_;
  std::string url = server.url;
  if (!server.tls_name.empty()) {
    connect_to = ::curl_slist_append(nullptr, use_tls_name(url, server.tls_name).c_str());
    ::curl_easy_setopt(easy, CURLOPT_CONNECT_TO, connect_to);
  }
  ::curl_easy_setopt(easy, CURLOPT_URL, (url + request.path).c_str());
  ::curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  ::curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  ::curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  if (client.speaks_ == Speaks::kHttp2) {
    // For the one HTTP/2 connection. Where there will be none, libcurl 7.88 may forget one of
    // several that have begun to wait for it.
    if (client.multiplexes_) ::curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
    ::curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kStreamBuffer);
  } else {
    ::curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  }
  ::curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  ::curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 15L);
  ::curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
  ::curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(std::min(kConnectTimeout, request.deadline).count()));
  ::curl_easy_setopt(easy, CURLOPT_USERAGENT, "egw");
  ::curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, detail);
  ::curl_easy_setopt(easy, CURLOPT_PRIVATE, this);
  ::curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  ::curl_easy_setopt(easy, CURLOPT_HEADERDATA, this);
  ::curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  ::curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
  ::curl_easy_setopt(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  ::curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, server.insecure ? 0L : 1L);
  ::curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, server.insecure ? 0L : 2L);
  if (const std::string& pem = credentials.ca.empty() ? server.ca : credentials.ca; !pem.empty()) {
    const curl_blob ca = blob_of(pem);
    ::curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &ca);
    ::curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);  // and nobody else
  }
  if (!server.proxy.empty()) ::curl_easy_setopt(easy, CURLOPT_PROXY, server.proxy.c_str());
  if (!credentials.certificate.empty()) {
    const curl_blob certificate = blob_of(credentials.certificate);
    const curl_blob key = blob_of(credentials.key);
    ::curl_easy_setopt(easy, CURLOPT_SSLCERT_BLOB, &certificate);
    ::curl_easy_setopt(easy, CURLOPT_SSLKEY_BLOB, &key);
  }
  if (!credentials.token.empty()) header(("Authorization: Bearer " + credentials.token).c_str());
  header(("Accept: " + request.accept).c_str());
  if (request.method != "GET") {
    ::curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  if (!request.body.empty()) {
    header(("Content-Type: " + request.content_type).c_str());
    header("Expect:");
    ::curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request.body.data());
    ::curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                       static_cast<curl_off_t>(request.body.size()));
  }
  ::curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
}

std::string HttpClient::Transfer::reason(int result) const {
  if (!broken.empty()) return broken;
  const auto code = static_cast<CURLcode>(result);
  std::string text = detail[0] != '\0' ? detail : ::curl_easy_strerror(code);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
      return "its certificate is not accepted (" + text + "): check the certificate authority";
    case CURLE_SSL_CERTPROBLEM:
      return "the client certificate or its key cannot be used: " + text;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
      return "no TLS connection: " + text;
    default:
      return text;
  }
}

HttpClient::HttpClient(Server server, Speaks speaks)
    : server_(std::move(server)),
      speaks_(speaks),
      multiplexes_(server_.url.rfind("https://", 0) == 0),
      received_(steady_clock::now().time_since_epoch().count()) {
  init_curl();
  multi_ = ::curl_multi_init();
  if (multi_ == nullptr) throw std::bad_alloc();
  thread_ = std::thread([this] { run(); });
}

HttpClient::~HttpClient() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    ::curl_multi_wakeup(multi_);
  }
  thread_.join();
  ::curl_multi_cleanup(multi_);
}

void HttpClient::wake() {
  const std::lock_guard lock(mutex_);
  ::curl_multi_wakeup(multi_);
}

HttpClient::Time HttpClient::last_received() const { return Time(Time::duration(received_)); }

void HttpClient::tell_of_death(std::function<void(Time)> told) { tell_ = std::move(told); }

void HttpClient::doubt(Time since) {
  doubted_ = since.time_since_epoch().count();
  wake();
}

HttpAnswer HttpClient::call(const HttpRequest& request, const Credentials& credentials,
                            const Stop* stop) {
  Transfer transfer(*this, request, credentials, stop);
  if (transfer.easy == nullptr) {
    transfer.answer.error = "out of memory";
    return transfer.answer;
  }
  transfer.set_up();
  std::unique_lock lock(mutex_);
  waiting_.push_back(&transfer);
  ::curl_multi_wakeup(multi_);
  done_.wait(lock, [&] { return transfer.done; });
  return std::move(transfer.answer);
}

void HttpClient::run() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  int looks = 0;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (ended_) break;
    }
    if (const Time since(Time::duration(doubted_.exchange(0))); since > Time{}) {
      if (last_received() < since) reset_connection();
    }
    start_waiting();
    int running = 0;
    ::curl_multi_perform(multi_, &running);
    collect();
    const Time now = steady_clock::now();
    const auto longest = looks > 0 ? milliseconds(kGlance) : milliseconds(kLongestPoll);
    const auto pause =
        std::clamp<milliseconds>(std::chrono::ceil<milliseconds>(check(now) - now), 0ms, longest);
    int news = 0;
    ::curl_multi_poll(multi_, nullptr, 0, static_cast<int>(pause.count()), &news);
    looks = news > 0 ? kLooks : std::max(0, looks - 1);
  }
  while (!active_.empty()) end(*active_.front(), "the client is being closed");
}

void HttpClient::start_waiting() {
  std::deque<Transfer*> fresh;
  {
    const std::lock_guard lock(mutex_);
    fresh.swap(waiting_);
  }
  for (Transfer* transfer : fresh) {
    active_.push_back(transfer);
    begin(*transfer);
  }
}

void HttpClient::begin(Transfer& transfer) {
  transfer.begun = transfer.last = steady_clock::now();
  if (transfer.request.on_data) ++streams_;
  if (::curl_multi_add_handle(multi_, transfer.easy) != CURLM_OK) {
    end(transfer, "libcurl refused the request");
  }
}

// A request that took `taken` has had no answer, and nothing else has come meanwhile.
bool HttpClient::tells(const Transfer& t, Time::duration taken) const {
  return !t.is_stream() && taken >= kTelling && last_received() < t.begun;
}

void HttpClient::found_dead(Time since) {
  reset_connection();
  if (tell_) tell_(since);
}

void HttpClient::collect() {
  int left = 0;
  Time dead{};  // when a request began that tells
  while (const CURLMsg* message = ::curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode result = message->data.result;
    Transfer* transfer = nullptr;
    ::curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
    // A server that stands still takes connections (the kernel does) and shakes no hands.
    if (result == CURLE_OPERATION_TIMEDOUT &&
        tells(*transfer, steady_clock::now() - transfer->begun)) {
      dead = transfer->begun;
    }
    end(*transfer, result == CURLE_OK ? transfer->broken : transfer->reason(result));
  }
  if (dead > Time{}) found_dead(dead);
}

HttpClient::Time HttpClient::check(Time now) {
  Time next = now + kLongestPoll;
  Time dead{};
  const std::list<Transfer*> all = active_;
  for (Transfer* t : all) {
    if (t->stop != nullptr && t->stop->requested()) {
      t->answer.stopped = true;
      end(*t, "stopped");
      continue;
    }
    const bool stream = t->is_stream();
    const auto allowed = stream ? t->request.longest : t->request.deadline;
    if (now >= t->begun + allowed) {
      if (tells(*t, allowed)) dead = t->begun;
      end(*t, stream ? "the stream has lasted long enough"
                     : "no complete answer within " + std::to_string(allowed.count()) + " ms");
      continue;
    }
    next = std::min(next, t->begun + allowed);
    if (!stream || t->request.silence_ms == nullptr) continue;
    const Time silent = t->last + milliseconds(t->request.silence_ms->load());
    if (now >= silent) {
      t->answer.silent = true;
      end(*t, "nothing has come for " + std::to_string(t->request.silence_ms->load()) + " ms");
    } else {
      next = std::min(next, silent);
    }
  }
  if (dead > Time{}) found_dead(dead);
  return next;
}

void HttpClient::end(Transfer& transfer, const std::string& error) {
  HttpAnswer& answer = transfer.answer;
  answer.code = transfer.code();
  answer.error = error;
  long version = 0;
  ::curl_easy_getinfo(transfer.easy, CURLINFO_HTTP_VERSION, &version);
  if (version == CURL_HTTP_VERSION_1_0 || version == CURL_HTTP_VERSION_1_1) multiplexes_ = false;
  curl_off_t before_sending = 0;
  ::curl_easy_getinfo(transfer.easy, CURLINFO_PRETRANSFER_TIME_T, &before_sending);
  answer.sent = before_sending > 0;
  curl_off_t seconds = 0;
  ::curl_easy_getinfo(transfer.easy, CURLINFO_RETRY_AFTER, &seconds);
  answer.retry_after =
      std::clamp<milliseconds>(std::chrono::seconds(seconds), 0ms, milliseconds(kMaxRetryAfter));
  ::curl_multi_remove_handle(multi_, transfer.easy);
  if (transfer.request.on_data) --streams_;
  active_.remove(&transfer);
  const std::lock_guard lock(mutex_);
  transfer.done = true;
  done_.notify_all();
}

void HttpClient::reset_connection() {
  while (!active_.empty()) end(*active_.front(), "the server has stopped answering");
  void* fresh = ::curl_multi_init();
  if (fresh == nullptr) return;
  const std::lock_guard lock(mutex_);
  ::curl_multi_cleanup(std::exchange(multi_, fresh));
  // Whoever came meanwhile has woken the old one.
  ::curl_multi_wakeup(multi_);
}

std::size_t HttpClient::on_header(char* data, std::size_t size, std::size_t count, void* ctx) {
  auto* t = static_cast<Transfer*>(ctx);
  const std::string_view line(data, size * count);
  t->heard();
  t->header_bytes += line.size();
  if (line == "\r\n" && t->is_stream() && t->request.on_begin) t->request.on_begin();
  if (t->header_bytes <= kMaxHeader) return line.size();
  t->broken = "the answer's header has more than " + std::to_string(kMaxHeader) + " bytes";
  return 0;
}

std::size_t HttpClient::on_body(char* data, std::size_t size, std::size_t count, void* ctx) {
  auto* t = static_cast<Transfer*>(ctx);
  const std::size_t bytes = size * count;
  t->heard();
  try {
    if (t->is_stream()) {
      if (t->request.on_data({data, bytes})) return bytes;
      t->broken = "refused";
      return 0;
    }
    const std::size_t limit =
        t->request.on_data ? std::min(kMaxRefusal, t->request.max_answer) : t->request.max_answer;
    if (t->answer.body.size() + bytes <= limit) {
      t->answer.body.append(data, bytes);
      return bytes;
    }
    t->broken = "the answer has more than " + std::to_string(limit) + " bytes";
  } catch (const std::exception& e) {
    t->broken = e.what();
  }
  return 0;
}

}  // namespace egw::kube

/**
 * The parameters of a connection to PostgreSQL: hosts, role, password, TLS, and the rules of a
 * cluster.
 */

/** A password that only `reveal` returns, such as the Secret of src/settings. */
export interface SecretLike {
  reveal(): string
}

/** A server: host name, address, or the directory of its Unix socket (begins with `/`). */
export type DatabaseHost = { readonly host: string; readonly port: number }

/**
 * TLS toward the server: the certificate is always verified, name included. `ca`: PEM text; left
 * out, the system's.
 */
export type DatabaseTls = { readonly ca?: string; readonly serverName?: string }

/** PostgreSQL with synchronous replication and automatic failover. */
export type ClusterRules = {
  /**
   * The longest silence of a synchronous standby, in milliseconds, after which the answers of its
   * primary do not count; 0: they always count.
   */
  readonly standbyAgeMs: number
}

/** The host as shown in messages. */
export const nameOf = ({ host, port }: DatabaseHost): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

/** Address of a database, and the role of the connection. */
export type ConnectionOptions = {
  /** At least one; the primary among them is found and followed. */
  readonly hosts: readonly DatabaseHost[]
  readonly database: string
  readonly user: string
  readonly password?: SecretLike | undefined
  readonly tls?: DatabaseTls | undefined
  /** Left out: one server, or replication that no commit waits for. */
  readonly cluster?: ClusterRules | undefined
}

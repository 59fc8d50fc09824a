import type { DebianProgram } from './debian-programs.ts'
import { POP_PEERS } from './peers/pop3-peers.ts'
import { TLS_PEERS } from './peers/tls-peers.ts'

/** One bench of `npm run bench`. */
export type Bench = {
  readonly name: string
  readonly title: string
  /** File in this folder, if it has another name than the bench. */
  readonly script?: string
  readonly peers: readonly (DebianProgram & { readonly name: string })[]
  /** Further Debian packages that the bench needs. */
  readonly needs: readonly string[]
  readonly args: (rounds: number, quick: boolean) => readonly string[]
  /** True for a bench that takes hours and can wait before each part. */
  readonly hasSteps?: boolean
}

const TCPSERVER = { name: 'tcpserver', debianPackage: 'ucspi-tcp', installed: true }
const DOVECOT_GRANTS = { name: 'dovecot + grant', debianPackage: 'dovecot-pgsql', installed: true }
const FRONTS = TLS_PEERS.filter(({ name }) => name === 'haproxy' || name === 'stunnel')
/** In the order of the page. */
export const BENCHES: readonly Bench[] = [
  {
    name: 'pop3s',
    title: 'Whole sessions with grants, POP3 and POP3S',
    peers: [
      ...POP_PEERS.filter(({ name }) => name === 'dovecot tuned' || name === 'courier'),
      DOVECOT_GRANTS,
      ...FRONTS,
    ],
    needs: ['openssl', 'gcc', 'libssl-dev'],
    args: (rounds, quick) => ['--rounds', String(rounds), ...(quick ? ['--seconds', '0.2', '--warm', '0.2'] : [])],
  },
  {
    name: 'growth',
    title: 'How the cost of a POP3S session grows',
    script: 'pop3s',
    peers: POP_PEERS.filter(({ name }) => name === 'dovecot tuned'),
    needs: ['openssl', 'gcc', 'libssl-dev'],
    args: (rounds, quick) => [
      ...['--growth', '--peers', 'dovecot tuned', '--rounds', String(rounds)],
      ...(quick ? ['--seconds', '0.2', '--warm', '0.2'] : ['--warm', '2']),
    ],
  },
  {
    name: 'pop3d',
    title: 'POP3 without grants',
    peers: POP_PEERS,
    needs: ['gcc', 'libssl-dev'],
    args: (rounds, quick) => [String(rounds), '', quick ? '0.2' : '2'],
  },
  {
    name: 'tls',
    title: 'TLS',
    peers: TLS_PEERS,
    needs: ['openssl', 'gcc', 'libssl-dev'],
    args: rounds => [String(rounds)],
  },
  {
    name: 'gate',
    title: 'The gate',
    peers: [TCPSERVER],
    needs: ['gcc', 'libpq-dev'],
    args: (rounds, quick) => [String(rounds), ...(quick ? ['1', '1000'] : ['3', '100000'])],
  },
  {
    name: 'gates',
    title: 'Ten gates on one primary',
    peers: [],
    needs: [],
    args: (rounds, quick) => [
      ...['--rounds', String(rounds)],
      ...(quick ? ['--seconds', '0.5', '--grants', '10000', '--rate', '1000'] : []),
    ],
  },
  {
    name: 'authd',
    title: 'authd',
    peers: [],
    needs: ['rsyslog', 'bsdutils'],
    args: (rounds, quick) => ['--rounds', String(rounds), ...(quick ? ['--quick'] : [])],
  },
  {
    name: 'grants',
    title: 'The store of grants',
    peers: [],
    needs: [],
    args: (_, quick) => (quick ? ['1', '100000'] : []),
  },
  {
    name: 'scale',
    script: 'scale/scale',
    title: 'Ten million grants',
    peers: [],
    needs: ['postgresql'],
    args: (_, quick) => (quick ? ['--grants', '100000', '--logins', '20000', '--seconds', '1'] : []),
    hasSteps: true,
  },
]

/** Rows of settings: the kinds of values that a setting can have, and the sections of rows. */
import { join } from 'node:path'
import * as v from 'valibot'
import { parseSocketAddress, type SocketAddress } from '../process/socket-address.ts'
import { TRANSLATION_PREFIX_LENGTHS } from '../wire/customer-networks.ts'
import { familyOf, type Network, NetworkSet, parseNetwork } from '../wire/ip-address.ts'
import { DURATION_TEXT, type DurationUnit, parseDurationIn, UNIT_NAMES, writeDuration } from './duration.ts'

/**
 * One setting: the schema of its permitted values, with its default, and its meaning in a sentence
 * for the administrator.
 */
export type Row<Output> = v.GenericSchema<unknown, Output> & {
  /** The default in the form of the settings file. */
  readonly default: unknown
  /** The default if popup.compat is "qmail". Undefined: the same default. */
  readonly qmailDefault?: unknown
  /** The default is the file of this name in run_dir. */
  readonly inRunDir?: string
  readonly doc: string
  /** The unit of a plain number; undefined for a setting without a unit. */
  readonly unit?: DurationUnit
  /** Converts the text of an environment variable to the form of the settings file. */
  readonly fromText: (text: string) => unknown
  /**
   * True for settings that the original's config.h or the specification names: their environment
   * variable has no section in its name.
   */
  readonly bareName: boolean
  /** Names that the setting had before; each stays valid, in the file and in the environment. */
  readonly formerNames: readonly string[]
}

/** The default of top.run_dir. */
export const RUN_DIR = '/run/auth-relay'

type Options = { readonly bareName?: boolean; readonly formerNames?: readonly string[] }

/** Marks a setting whose environment variable is its bare name: EXP_TIME, not GRANTS_EXP_TIME. */
export const BARE: Options = { bareName: true }

const row = <Output>(
  schema: v.GenericSchema<unknown, Output>,
  fallback: unknown,
  doc: string,
  fromText: (text: string) => unknown,
  { bareName = false, formerNames = [] }: Options = {},
): Row<Output> => ({ ...schema, default: fallback, doc, fromText, bareName, formerNames })

/** Gives the setting another default for popup.compat = "qmail". */
export const withQmailDefault = <Output>(row: Row<Output>, qmailDefault: Output): Row<Output> => ({
  ...row,
  qmailDefault,
})

/** Values of the settings that decide the defaults of others. Undefined: the setting's default. */
export type Leading = { readonly compat?: 'none' | 'qmail' | undefined; readonly runDir?: string }

/** The default of a setting, in the form of the settings file. */
export const defaultOf = (row: Row<unknown>, { compat, runDir }: Leading): unknown => {
  if (runDir !== undefined && runDir !== '' && row.inRunDir !== undefined) return join(runDir, row.inRunDir)
  return compat === 'qmail' && row.qmailDefault !== undefined ? row.qmailDefault : row.default
}

const asIs = (text: string): unknown => text
const words = (text: string): unknown => text.split(/[\s,]+/).filter(word => word !== '')

/** true or false. In the environment also 1, 0, yes, no, on and off; empty is false. */
export const flag = (fallback: boolean, doc: string, options?: Options): Row<boolean> =>
  row(
    v.boolean('must be true or false'),
    fallback,
    doc,
    text => (/^(1|true|yes|on)$/i.test(text) ? true : /^(0|false|no|off|)$/i.test(text) ? false : text),
    options,
  )

/** The engine of the connections of some processes. `processes` names them in the doc. */
export const engine = (processes: string): Row<'auto' | 'node' | 'epoll'> =>
  choice(
    ['auto', 'node', 'epoll'],
    'auto',
    `Engine of the connections of the ${processes}. epoll: a separate event loop for sockets, which takes less processor time. node: streams of Node.js. auto: epoll if the host has all that it needs, otherwise node.`,
  )

/** A whole number from `min` to `max`. */
export const integer = (fallback: number, min: number, max: number, doc: string, options?: Options): Row<number> => {
  const message = `must be a whole number from ${min} to ${max}`
  const schema = v.pipe(v.number(message), v.integer(message), v.minValue(min, message), v.maxValue(max, message))
  return row(schema, fallback, doc, text => (/^-?\d+$/.test(text) ? Number(text) : text), options)
}

/** One of a few whole numbers. */
export const numberChoice = <const N extends number>(
  choices: readonly [N, ...N[]],
  fallback: N,
  doc: string,
  options?: Options,
): Row<N> =>
  row(
    v.picklist(choices, `must be one of the numbers ${choices.join(', ')}`),
    fallback,
    doc,
    text => (/^\d+$/.test(text) ? Number(text) : text),
    options,
  )

/**
 * A duration from `min` to `max`. The bounds, the default and the value are counts of `unit`. The
 * file has a text with a unit ("30s", "800ms", "90d"). A plain number counts `unit`, because older
 * files have no units.
 */
export const duration = (
  unit: DurationUnit,
  fallback: number,
  min: number,
  max: number,
  doc: string,
  options?: Options,
): Row<number> => {
  const message = `must be a duration from "${writeDuration(min, unit)}" to "${writeDuration(max, unit)}" in whole ${UNIT_NAMES[unit]}, such as "${writeDuration(fallback > 0 ? fallback : max, unit)}"`
  const count = v.pipe(v.number(message), v.integer(message), v.minValue(min, message), v.maxValue(max, message))
  const schema = v.pipe(
    v.union([count, v.pipe(v.string(message), v.regex(DURATION_TEXT, message))], message),
    v.rawTransform<number | string, number>(({ dataset, addIssue, NEVER }) => {
      const count = typeof dataset.value === 'number' ? dataset.value : parseDurationIn(unit, dataset.value)
      if (count !== undefined && Number.isInteger(count) && count >= min && count <= max) return count
      addIssue({ message })
      return NEVER
    }),
  )
  const numbers = `A number without a unit counts ${UNIT_NAMES[unit]}.`
  const fromText = (text: string): unknown => (/^-?\d+$/.test(text) ? Number(text) : text)
  return { ...row(schema, writeDuration(fallback, unit), `${doc} ${numbers}`, fromText, options), unit }
}

/**
 * A list of delays: texts such as "800ms", or numbers of seconds (`1.5`). The values are
 * milliseconds. In the environment, spaces or commas separate the delays.
 */
export const delays = (fallback: readonly string[], doc: string, options?: Options): Row<readonly number[]> => {
  const message = 'must be a list of durations from "0s" to "9999s", such as ["2s", "4s", "8s", "15s"]'
  const delay = v.pipe(
    v.union([v.number(message), v.string(message)], message),
    v.rawTransform<number | string, number>(({ dataset: { value }, addIssue, NEVER }) => {
      const isCount = typeof value === 'number' || /^\d{1,4}(\.\d{1,3})?$/.test(value)
      const milliseconds = isCount ? Number(value) * 1000 : parseDurationIn('ms', value)
      if (milliseconds !== undefined && milliseconds >= 0 && milliseconds < 10_000_000) return Math.round(milliseconds)
      addIssue({ message })
      return NEVER
    }),
  )
  return row(v.pipe(v.array(delay, message), v.readonly()), fallback, doc, words, options)
}

/** A text of one line. The empty text means "not set". */
export const text = (fallback: string, doc: string, options?: Options): Row<string> =>
  row(
    v.pipe(v.string('must be a text in quotes'), v.regex(/^[^\0\r\n]*$/, 'must be one line')),
    fallback,
    doc,
    asIs,
    options,
  )

/** A password in the settings file. The empty text means "not set"; `password` is refused. */
export const password = (doc: string, options?: Options): Row<string> =>
  row(
    v.pipe(
      v.string('must be a text in quotes'),
      v.regex(/^[^\0\r\n]*$/, 'must be one line'),
      v.notValue('password', 'is the password that attackers try first: choose a random one'),
    ),
    '',
    doc,
    asIs,
    options,
  )

/** An absolute path. The empty text means "not set". */
export const path = (fallback: string, doc: string, options?: Options): Row<string> =>
  row(
    v.pipe(v.string('must be a path in quotes'), v.regex(/^(\/[^\0\r\n]*)?$/, 'must be an absolute path')),
    fallback,
    doc,
    asIs,
    options,
  )

/** Path of a Unix socket between our programs. The default is the file `name` in run_dir. */
export const socketInRunDir = (name: string, doc: string, options?: Options): Row<string> => ({
  ...path(join(RUN_DIR, name), `${doc} Default: ${name} in run_dir.`, options),
  inRunDir: name,
})

/** One of a few words. */
export const choice = <const Word extends string>(
  choices: readonly [Word, ...Word[]],
  fallback: Word,
  doc: string,
  options?: Options,
): Row<Word> =>
  row(v.picklist(choices, `must be one of ${choices.map(c => `"${c}"`).join(', ')}`), fallback, doc, asIs, options)

/** A list of texts. In the environment, spaces or commas separate them. */
export const list = (fallback: readonly string[], doc: string, options?: Options): Row<readonly string[]> =>
  row(
    v.pipe(v.array(v.string('must be a text in quotes'), 'must be a list: ["a", "b"]'), v.readonly()),
    fallback,
    doc,
    words,
    options,
  )

/** A program and its arguments. In the environment, spaces separate them. */
export const command = (fallback: readonly string[], doc: string, options?: Options): Row<readonly string[]> =>
  row(
    v.pipe(
      v.array(v.string('must be a text in quotes'), 'must be a list: ["/path/to/program", "argument"]'),
      v.everyItem(word => !word.includes('\0'), 'must not contain NUL'),
      v.readonly(),
    ),
    fallback,
    doc,
    line => line.split(/\s+/).filter(word => word !== ''),
    options,
  )

const SOCKET_ADDRESS_FORMS = 'must be "ADDRESS:PORT", "[IPV6]:PORT", "*:PORT" or "unix:/PATH"'

/** parseSocketAddress decides. The pattern is for editors, which read the JSON schema. */
const socketAddressSchema = v.pipe(
  v.string('must be an address in quotes'),
  // The brackets have the form of codes, because RE2 and Rust read "[:[" as the beginning of a
  // class.
  v.regex(/^(unix:\/.*|fd:\d{1,4}|((\[[^\]]+\]|[^:\x5b\x5d]*):)?\d{1,5})$/, SOCKET_ADDRESS_FORMS),
  v.rawTransform<string, SocketAddress>(({ dataset, addIssue, NEVER }) => {
    const address = parseSocketAddress(dataset.value)
    if (address !== undefined) return address
    addIssue({ message: SOCKET_ADDRESS_FORMS })
    return NEVER
  }),
)

/** Addresses to listen on. */
export const socketAddresses = (
  fallback: readonly string[],
  doc: string,
  options?: Options,
): Row<readonly SocketAddress[]> =>
  row(v.pipe(v.array(socketAddressSchema, 'must be a list of addresses'), v.readonly()), fallback, doc, words, options)

/** One address to connect to or to listen on. The empty text means "not set". */
export const socketAddress = (fallback: string, doc: string, options?: Options): Row<SocketAddress | undefined> =>
  row(
    v.union(
      [
        v.pipe(
          v.literal(''),
          v.transform((): undefined => undefined),
        ),
        socketAddressSchema,
      ],
      issue => (issue.received === '""' ? '' : SOCKET_ADDRESS_FORMS),
    ),
    fallback,
    doc,
    asIs,
    options,
  )

const noNetwork = (text: string): string =>
  `"${text}" is not a network: write "192.0.2.0/24", "2001:db8::/32" or one address`

/** parseNetwork decides. The pattern is for editors, which read the JSON schema. */
const networkSchema = v.pipe(
  v.string('must be a network in quotes'),
  v.regex(/^[0-9A-Fa-f.:]+(\/\d{1,3})?$/, ({ input }) => noNetwork(input)),
  v.rawTransform<string, Network>(({ dataset, addIssue, NEVER }) => {
    const network = parseNetwork(dataset.value)
    if (network !== undefined) return network
    addIssue({ message: noNetwork(dataset.value) })
    return NEVER
  }),
)

/** A set of networks. An empty set contains no address. */
export const networks = (fallback: readonly string[], doc: string, options?: Options): Row<NetworkSet> =>
  row(
    v.pipe(
      v.array(networkSchema, 'must be a list of networks'),
      v.transform(found => new NetworkSet(found)),
    ),
    fallback,
    doc,
    words,
    options,
  )

/** Prefixes of the site's IPv4/IPv6 translators (RFC 6052 §2.2). */
export const translationPrefixes = (doc: string, options?: Options): Row<readonly Network[]> =>
  row(
    v.pipe(
      v.array(networkSchema, 'must be a list of prefixes'),
      v.everyItem(
        ({ base, prefixLength }) => familyOf(base) === 6 && TRANSLATION_PREFIX_LENGTHS.includes(prefixLength),
        `must be IPv6 prefixes of ${TRANSLATION_PREFIX_LENGTHS.map(length => `/${length}`).join(', ')} (RFC 6052)`,
      ),
      v.readonly(),
    ),
    [],
    doc,
    words,
    options,
  )

/** A list of tables, `[[section.name]]` in the file. The environment cannot set it. */
export const tables = <Output>(schema: v.GenericSchema<unknown, Output>, doc: string): Row<readonly Output[]> =>
  row(v.pipe(v.array(schema, 'must be [[tables]]'), v.readonly()), [], doc, asIs)

/** Schemas for the fields of `tables`. */
export const field = { socketAddress: socketAddressSchema, network: networkSchema }

/**
 * The settings of one program: a `[name]` table of the settings file. The name `''` is the top of
 * the file.
 */
export type Section<Rows extends Readonly<Record<string, Row<unknown>>> = Readonly<Record<string, Row<unknown>>>> = {
  readonly name: string
  readonly doc: string
  readonly rows: Rows
}

/** The settings of rows after reading. */
export type ValuesOf<Rows extends Section['rows']> = Readonly<v.InferOutput<v.ObjectSchema<Rows, undefined>>>

/** Declares a section. */
export const defineSection = <const Rows extends Readonly<Record<string, Row<unknown>>>>(
  name: string,
  doc: string,
  rows: Rows,
): Section<Rows> => ({ name, doc, rows })

/**
 * The environment variable that overrides a setting. `writtenName`: the present or a former name of
 * the setting, which the variable contains.
 */
export const environmentNameOf = (section: Section, name: string, writtenName = name): string =>
  (section.rows[name]?.bareName === true || section.name === '' ? writtenName : `${section.name}_${writtenName}`)
    .toUpperCase()
    .replaceAll('-', '_')

/** The present name of a setting, from its present or a former name; undefined if there is none. */
export const presentNameOf = ({ rows }: Section, written: string): string | undefined =>
  Object.hasOwn(rows, written)
    ? written
    : Object.entries(rows).find(([, { formerNames }]) => formerNames.includes(written))?.[0]

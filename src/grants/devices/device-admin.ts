/** Devices in the database: their storage, their changes, and the logins that they may have. */

import * as v from 'valibot'
import type { Database, DatabaseSession } from '../../database/database.ts'
import { arrayLiteral, endTime, ignored, int8, type Statement } from '../../database/statement.ts'

/** A device as its owner describes it. Limits: 0 is none; empty lists leave out their rule. */
export type Device = {
  readonly name: string
  readonly logins: readonly string[]
  readonly senders: readonly string[]
  /** Texts of networks. */
  readonly networks: readonly string[]
  /** Countries and AS numbers besides: `DE`, `AS64500`. */
  readonly places: readonly string[]
  readonly recipientDomains: readonly string[]
  readonly messagesPerHour: number
  readonly messagesPerDay: number
  readonly recipientsPerHour: number
  readonly recipientsPerDay: number
  readonly lineEndings: 'strict' | 'repair'
  /**
   * Minutes of the local day between which it may send; `from` may lie behind `to`. Null: always.
   */
  readonly hours: { readonly from: number; readonly to: number } | null
  /** Null: no end. */
  readonly until: Date | null
  readonly owner: string
  readonly note: string
}

/** Why a device was not stored. */
export type DeviceRefusal =
  | { readonly refused: 'exists' | 'unknown' }
  | { readonly refused: 'login'; readonly login: string }

const texts = v.array(v.string())

const LIST: Statement<Device> = {
  row: v.object({
    name: v.string(),
    logins: texts,
    senders: texts,
    networks: texts,
    places: texts,
    recipientDomains: texts,
    messagesPerHour: v.number(),
    messagesPerDay: v.number(),
    recipientsPerHour: v.number(),
    recipientsPerDay: v.number(),
    lineEndings: v.picklist(['strict', 'repair']),
    hours: v.nullable(v.object({ from: v.number(), to: v.number() })),
    until: endTime,
    owner: v.string(),
    note: v.string(),
  }),
  text: `
SELECT name, ARRAY(SELECT login FROM device_logins WHERE device = name ORDER BY login) AS logins, senders,
  networks::text[] AS networks, places, recipient_domains AS "recipientDomains", messages_per_hour AS "messagesPerHour",
  messages_per_day AS "messagesPerDay", recipients_per_hour AS "recipientsPerHour",
  recipients_per_day AS "recipientsPerDay", line_endings AS "lineEndings",
  CASE WHEN hours_from IS NOT NULL THEN jsonb_build_object('from', hours_from, 'to', hours_to) END AS hours,
  until, owner, note
FROM devices WHERE $1::text IS NULL OR name = $1 ORDER BY name`,
}

/** $2 and the following: the columns in their order. */
const STORE: Statement<unknown> = {
  row: ignored,
  text: `
INSERT INTO devices (name, senders, networks, recipient_domains, messages_per_hour, messages_per_day, recipients_per_hour,
  recipients_per_day, line_endings, until, owner, note, hours_from, hours_to, places)
VALUES ($1, $2::text[], $3::cidr[], $4::text[], $5, $6, $7, $8, $9,
  coalesce($10::timestamptz, 'infinity'), $11, $12, $13, $14, $15::text[])
ON CONFLICT (name) DO UPDATE SET senders = EXCLUDED.senders, networks = EXCLUDED.networks,
  recipient_domains = EXCLUDED.recipient_domains, messages_per_hour = EXCLUDED.messages_per_hour,
  messages_per_day = EXCLUDED.messages_per_day, recipients_per_hour = EXCLUDED.recipients_per_hour,
  recipients_per_day = EXCLUDED.recipients_per_day, line_endings = EXCLUDED.line_endings, until = EXCLUDED.until,
  owner = EXCLUDED.owner, note = EXCLUDED.note, hours_from = EXCLUDED.hours_from, hours_to = EXCLUDED.hours_to, places = EXCLUDED.places`,
}

const REMOVE: Statement<unknown> = { row: ignored, text: 'DELETE FROM devices WHERE name = $1' }
const TAKEN: Statement<{ login: string }> = {
  row: v.object({ login: v.string() }),
  text: `
SELECT login FROM device_logins
WHERE device <> $1 AND login = ANY (SELECT login_key(name) FROM unnest($2::text[]) AS name) LIMIT 1`,
}
const FORGET_LOGINS: Statement<unknown> = {
  row: ignored,
  text: `
DELETE FROM device_logins
WHERE device = $1 AND login <> ALL (SELECT login_key(name) FROM unnest($2::text[]) AS name)`,
}
const ADD_LOGINS: Statement<unknown> = {
  row: ignored,
  text: `
INSERT INTO device_logins (login, device) SELECT DISTINCT login_key(name), $1 FROM unnest($2::text[]) AS name
ON CONFLICT (login) DO NOTHING`,
}

/**
 * $1 login, $2 days: the networks of its logins, IPv6 by the /64, and how many logins there were.
 */
const OBSERVE: Statement<{ networks: readonly string[]; logins: number }> = {
  row: v.object({ networks: texts, logins: int8 }),
  text: `
SELECT coalesce((array_agg(DISTINCT network ORDER BY network))[1:100], '{}')::text[] AS networks, count(*) AS logins
FROM (
  SELECT CASE WHEN family(ip) = 4 THEN ip::cidr ELSE network(set_masklen(ip, 64)) END AS network
  FROM login_event
  WHERE refused IS NULL AND login_key(username) = login_key($1) AND at > now() - make_interval(days => $2::int)
) AS seen`,
}

/**
 * The administrator's side of the devices, on a database opened with the role `pop3authd` or the
 * owner. A change takes effect with the next lookup of the gate.
 */
export class DeviceAdmin {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** Every device, or the one of that name, by name. */
  async list(name: string | null = null): Promise<readonly Device[]> {
    return (await this.#database.query(LIST, [name])).rows
  }

  /**
   * Stores a device in place of one of its name. `isNew`: whether there must be none, or must be
   * one.
   */
  store(device: Device, isNew: boolean): Promise<DeviceRefusal | undefined> {
    const { name } = device
    const logins = arrayLiteral(device.logins)
    const work = async (session: DatabaseSession): Promise<DeviceRefusal | undefined> => {
      const known = await session.query(LIST, [name])
      if (known.rows.length > 0 === isNew) return { refused: isNew ? 'exists' : 'unknown' }
      const [taken] = (await session.query(TAKEN, [name, logins])).rows
      if (taken !== undefined) return { refused: 'login', login: taken.login }
      await session.query(STORE, [
        name,
        arrayLiteral(device.senders),
        arrayLiteral(device.networks),
        arrayLiteral(device.recipientDomains),
        device.messagesPerHour,
        device.messagesPerDay,
        device.recipientsPerHour,
        device.recipientsPerDay,
        device.lineEndings,
        device.until,
        device.owner,
        device.note,
        device.hours?.from ?? null,
        device.hours?.to ?? null,
        arrayLiteral(device.places),
      ])
      await session.query(FORGET_LOGINS, [name, logins])
      await session.query(ADD_LOGINS, [name, logins])
      return undefined
    }
    return this.#database.transaction(work, { durable: true })
  }

  /** Where a login came from in the last days; undefined: nowhere. */
  async observe(login: string, days: number): Promise<{ networks: readonly string[]; logins: number } | undefined> {
    const [seen] = (await this.#database.query(OBSERVE, [login, days])).rows
    return seen === undefined || seen.logins === 0 ? undefined : seen
  }

  /** False if there is none. */
  async remove(name: string): Promise<boolean> {
    return (await this.#database.query(REMOVE, [name], { durable: true })).count > 0
  }
}

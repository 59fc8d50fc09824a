import forge from 'node-forge'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DatabaseTls } from '../../src/database/connection-options.ts'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { describeWith } from '../harness/runner/describe-with.ts'

type Issued = { readonly certificate: string; readonly key: string }

/** A certificate for the name, signed by the issuer, or self-signed as an authority. */
function issue(name: string, address: string | undefined, issuer?: { name: string } & Issued): Issued {
  const keys = forge.pki.rsa.generateKeyPair(2048)
  const certificate = forge.pki.createCertificate()
  certificate.publicKey = keys.publicKey
  certificate.serialNumber = `0${Math.floor(Math.random() * 1e9)}`
  certificate.validity.notBefore = new Date(Date.now() - 86_400_000)
  certificate.validity.notAfter = new Date(Date.now() + 86_400_000)
  certificate.setSubject([{ name: 'commonName', value: name }])
  certificate.setIssuer([{ name: 'commonName', value: issuer?.name ?? name }])
  certificate.setExtensions([
    { name: 'basicConstraints', cA: issuer === undefined },
    {
      name: 'subjectAltName',
      altNames: [{ type: 2, value: name }, ...(address === undefined ? [] : [{ type: 7, ip: address }])],
    },
  ])
  certificate.sign(
    issuer === undefined ? keys.privateKey : forge.pki.privateKeyFromPem(issuer.key),
    forge.md.sha256.create(),
  )
  return { certificate: forge.pki.certificateToPem(certificate), key: forge.pki.privateKeyToPem(keys.privateKey) }
}

describeWith([DEBIAN_POSTGRES], 'TLS to the server', () => {
  const authority = { name: 'authority of tests', ...issue('authority of tests', undefined) }
  const otherAuthority = issue('stranger', undefined)
  let right: PostgresCluster
  let wrongName: PostgresCluster
  let plain: PostgresCluster
  beforeAll(async () => {
    right = await PostgresCluster.start({ tls: issue('db.example.org', '127.0.0.1', authority) })
    wrongName = await PostgresCluster.start({ tls: issue('other.example.org', undefined, authority) })
    plain = await PostgresCluster.start()
  })
  afterAll(async () => {
    for (const cluster of [right, wrongName, plain]) await cluster.remove()
  })

  const ask = async (cluster: PostgresCluster, tls: DatabaseTls): Promise<boolean | undefined> => {
    const database: Database = openDatabase({
      hosts: [{ host: '127.0.0.1', port: cluster.port }],
      database: 'postgres',
      user: 'postgres',
      password: { reveal: () => PostgresCluster.password },
      applicationName: 'tests',
      tls,
    })
    try {
      const { rows } = await database.query({
        text: 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
        row: v.object({ ssl: v.boolean() }),
      })
      return rows[0]?.ssl
    } finally {
      await database.close()
    }
  }

  test('a certificate of the authority for this address', async () => {
    expect(await ask(right, { ca: authority.certificate })).toBe(true)
  })

  test('a certificate of the authority for the name that the settings give', async () => {
    expect(await ask(right, { ca: authority.certificate, serverName: 'db.example.org' })).toBe(true)
    expect(await ask(wrongName, { ca: authority.certificate, serverName: 'other.example.org' })).toBe(true)
  })

  test('a certificate for another name', async () => {
    await expect(ask(wrongName, { ca: authority.certificate })).rejects.toThrow(/does not match certificate's altnames/)
  })

  test("another authority's certificate, and the system's authorities", async () => {
    await expect(ask(right, { ca: otherAuthority.certificate })).rejects.toThrow(/unable to verify|self.signed|issuer/)
    await expect(ask(right, {})).rejects.toThrow(/unable to verify|self.signed|issuer/)
  })

  test('a server without TLS gets no password', async () => {
    await expect(ask(plain, { ca: authority.certificate })).rejects.toThrow(/does not support SSL/)
  })
})

output "worker_role_arn" {
  description = "For the annotation in cluster/kuberay/service-account.yaml."
  value       = aws_iam_role.worker.arn
}

output "bucket" {
  description = "Location of data sets and runs: s3://<bucket>/data, s3://<bucket>/runs."
  value       = aws_s3_bucket.runs.id
}

output "kubeconfig" {
  description = "Command that points kubectl at the cluster."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${module.eks.cluster_name}"
}

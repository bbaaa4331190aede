output "account" {
  description = "The file cluster/kuberay/account/kustomization.yaml for this account."
  value = templatefile("${path.module}/account.yaml.tftpl", {
    registry  = aws_ecr_repository.images.repository_url
    image_tag = var.image_tag
    bucket    = aws_s3_bucket.runs.id
    region    = var.region
    role      = aws_iam_role.worker.arn
  })
}

output "registry" {
  description = "Where to push the images."
  value       = aws_ecr_repository.images.repository_url
}

output "bucket" {
  description = "Data sets, models and runs: s3://<bucket>/data, s3://<bucket>/models, s3://<bucket>/runs."
  value       = aws_s3_bucket.runs.id
}

output "kubeconfig" {
  description = "Command that points kubectl at the cluster."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${module.eks.cluster_name}"
}
